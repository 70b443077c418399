"""``make test-kernel``: the lab on the kernel's own WireGuard, in a virtual machine with a Debian kernel.

Arguments go to pytest. Where the machine cannot run it says why and ends well, unless TRENZA_TEST_REQUIRE
names ``kernel``.
"""

from __future__ import annotations

import os
import sys
import time

from tests.kernel import machine

PATIENCE = 10
LIMIT_SECONDS = 3600.0
TESTS = ("tests/lab/test_kernel.py",)
ENVIRONMENT = {
    "TRENZA_TEST_PATIENCE": str(PATIENCE),
    "TRENZA_TEST_REQUIRE": "root,netns,tun,kernel-wireguard,iperf3",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def required() -> bool:
    """Whether a host that cannot run the machine is an error."""
    return "kernel" in os.environ.get("TRENZA_TEST_REQUIRE", "").split(",")


def run(arguments: list[str]) -> int:
    """Run pytest inside and print what it prints; returns its status."""
    options = ["-v", "-rs", "--tb=short", "--color=no", "-p", "no:cacheprovider", "-p", "tests.kernel.report"]
    limit = f"--timeout={LIMIT_SECONDS:.0f}"
    command = [sys.executable, "-m", "pytest", *options, limit, *(arguments or TESTS)]
    now = int(time.time())
    status = None
    for line in machine.boot(command, ENVIRONMENT, now=now, seconds=LIMIT_SECONDS):
        status = machine.status_of(line)
        if status is None:
            print(line, flush=True)
    if status is None:
        print("the machine ended without finishing the tests", file=sys.stderr)
    return 1 if status is None else status


def main() -> int:
    try:
        return run(sys.argv[1:])
    except machine.CannotRun as error:
        print(f"test-kernel {'cannot run' if required() else 'skipped'}: {error}", file=sys.stderr)
        return int(required())


if __name__ == "__main__":
    sys.exit(main())
