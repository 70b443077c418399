"""``trenza-relay``: run a relay from ``--config FILE`` or the environment until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from relay import VERSION
from relay.config import Config, ConfigProblem, parse_config, read_config_file
from relay.server import Relay

GC_THRESHOLDS = (100_000, 50, 1000)  # views of the arena are tracked: the defaults collect all the time
SWITCH_SECONDS = 0.001  # packets wait no longer for a thread that saves the list or begins a TLS handshake
CONSOLE_SCRIPT = "trenza-relay"
logger = logging.getLogger("trenza.relay")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status. Errors are one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="trenza-relay", description="Run a Trenza relay: DERP over TLS, and STUN."
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TRENZA_RELAY_NAME=value lines (default: the environment)"
    )
    parser.add_argument("--verbose", action="store_true", help="also log failed handshakes")
    parser.add_argument("--version", action="version", version=f"trenza-relay {VERSION}")
    options = parser.parse_args(arguments)
    level = logging.DEBUG if options.verbose else logging.INFO
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("trenza").setLevel(level)
    try:
        _refuse_shared_environment()
        config = parse_config(read_config_file(options.config) if options.config else os.environ)
        _allow_many_files()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(config))
    except ConfigProblem as problem:
        print(problem, file=sys.stderr)
        return 1
    except OSError as error:  # DATA is on a full or read-only disk, belongs to another user, …
        print(f"trenza-relay: {error}; see TRENZA_RELAY_DATA", file=sys.stderr)
        return 1
    return 0


async def _serve(config: Config) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    relay = Relay(config)
    await relay.start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_SECONDS)
    await stopping.wait()
    logger.info("stopping")
    await relay.stop()


def _refuse_shared_environment() -> None:
    """The console script's packages have plain names (relay, wire): among others they could be mistaken."""
    if Path(sys.argv[0]).name == CONSOLE_SCRIPT and sys.prefix == sys.base_prefix:
        raise ConfigProblem(
            f"{CONSOLE_SCRIPT} needs an environment of its own: python3 -m venv /opt/trenza, install there"
        )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: the relay is as good without, a little slower."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _allow_many_files() -> None:
    """A client is a file: allow as many as the system lets this user have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
