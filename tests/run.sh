#!/usr/bin/env bash
# All tests: three runs of pytest, because Playwright's loop and pytest-asyncio do not mix and because labs of
# namespaces mostly wait, which two of them can do at once. Prints one line for each thing that was skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
status=0
run() { "$python" -m pytest -q -rs --timeout=300 "$@" || { code=$?; [ $code -eq 5 ] || status=1; }; }
run -n 2 --dist loadfile -m "not root and not browser and not long" tests
run -n 2 --dist loadfile -m "root and not browser and not long" tests
run -m "browser and not long" tests/browser
exit $status
