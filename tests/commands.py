"""``manage.py`` commands, one after another in one process: Django starts once, not for each of them.

Run as a program it reads argument lists as lines of JSON, and answers each with a line of JSON:
``[status, output, errors]``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
PROGRAM = (sys.executable, "-m", "tests.commands")
COMMAND_SECONDS = 120.0

Spawn = Callable[..., subprocess.Popen[bytes]]


def _spawn(*command: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, **options)


class Operator:
    """Gives commands to a process of its own, which starts with the first one.

    ``environment`` is the server's; ``spawn`` takes a command and ``Popen``'s options.
    """

    def __init__(self, environment: dict[str, str], spawn: Spawn = _spawn) -> None:
        self._environment = environment
        self._spawn = spawn
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def run(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> Any:
        """One command; returns its output, as a value where it was asked for with ``--json``.

        ``RuntimeError`` with what it said when it failed or took longer than ``seconds``.
        """
        with self._turn:
            status, output, errors = self._ask(arguments, seconds)
        if status:
            raise RuntimeError(f"{' '.join(arguments)}: {errors.strip() or output.strip()}")
        return json.loads(output) if "--json" in arguments else output

    def close(self) -> None:
        """End the process; a further command starts another."""
        with self._turn:
            self._end()

    def _ask(self, arguments: Sequence[str], seconds: float) -> tuple[int, str, str]:
        if self._process is not None and self._process.poll() is not None:  # killed with its server
            self._end()
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(arguments).encode() + b"\n")
            process.stdin.flush()
        readable, _, _ = select.select([process.stdout], [], [], seconds)
        line = process.stdout.readline() if readable else b""
        if not line:
            self._end()
            raise RuntimeError(f"{' '.join(arguments)}: no answer")
        status, output, errors = json.loads(line)
        return status, output, errors

    def _start(self) -> subprocess.Popen[bytes]:
        return self._spawn(
            *PROGRAM,
            env=self._environment,
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _end(self) -> None:
        if (process := self._process) is None:
            return
        self._process = None
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _obey(arguments: list[str]) -> tuple[int, str, str]:
    """Run one command as ``manage.py`` does."""
    from django.core.management import execute_from_command_line

    output, errors, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            execute_from_command_line(["manage.py", *arguments])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except Exception:  # told to who asked, as the shell would tell it
            traceback.print_exc()
            status = 1
    return status, output.getvalue(), errors.getvalue()


def main() -> None:
    """Obey line after line, until there are no more."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    for line in sys.stdin:
        print(json.dumps(_obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
