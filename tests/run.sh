#!/usr/bin/env bash
# All tests: three runs of pytest, because Playwright's loop and pytest-asyncio do not mix and because the
# namespace lab wants the machine for itself; only the first is shared by processes. Prints one line for each thing that was skipped, with its reason.
set -uo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
status=0
run() { "$python" -m pytest -q -rs --timeout=300 "$@" || { code=$?; [ $code -eq 5 ] || status=1; }; }
run -n 2 --dist loadfile -m "not root and not browser and not long" tests
run -m "root and not browser and not long" tests
run -m "browser and not long" tests/browser
exit $status
