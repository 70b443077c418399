"""The command line of ``manage.py serve``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from controlplane.env import Environment, EnvironmentProblem, HostPort, environment
from controlplane.supervisor.parent import Supervisor
from controlplane.supervisor.sockets import raise_file_limit


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``manage.py serve``; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    parser = argparse.ArgumentParser(
        prog="manage.py serve", description="Run the Trenza server and its relay."
    )
    parser.add_argument(
        "--listen", help="HOST:PORT of the web server (default: TRENZA_LISTEN or 127.0.0.1:8080)"
    )
    parser.add_argument("--workers", type=int, default=1, help="web workers; more than one needs REDIS_URL")
    parser.add_argument(
        "--downloads", action="store_true", help="build what the client's install script fetches, if need be"
    )
    options = parser.parse_args(arguments)
    try:
        if options.listen:
            HostPort.parse(options.listen, "--listen")
            os.environ["TRENZA_LISTEN"] = options.listen
            environment.cache_clear()
        env = environment()
        if options.workers < 1:
            raise EnvironmentProblem("--workers must be 1 or more")
        if options.workers > 1 and not env.scaled:
            raise EnvironmentProblem(
                "--workers above 1 needs REDIS_URL: workers share their pushes through Redis"
            )
        env.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        raise_file_limit()
        return asyncio.run(_run(env, options.workers, downloads=options.downloads))
    except EnvironmentProblem as problem:
        print(problem, file=sys.stderr)
        return 1


async def _run(env: Environment, workers: int, *, downloads: bool) -> int:
    supervisor = Supervisor(env, workers=workers, downloads=downloads)
    await supervisor.run()
    return supervisor.status
