#!/usr/bin/env bash
# All tests: three runs of pytest, because Playwright's loop and pytest-asyncio do not mix and because labs of
# namespaces mostly wait, which several of them can do at once. Prints one line for each thing that was skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
status=0
unset PYTHONDONTWRITEBYTECODE # hundreds of programs start: what they import should be compiled once
run() { "$python" -m pytest -q -rs --durations=15 --timeout=300 "$@" || { code=$?; [ $code -eq 5 ] || status=1; }; }
# Each server begins with a copy of this one, whose making takes longer than most tests.
TRENZA_TEST_PREPARED=$(mktemp -d)
export TRENZA_TEST_PREPARED
trap 'rm -rf "$TRENZA_TEST_PREPARED"' EXIT
"$python" -m tests.controlplane.serving "$TRENZA_TEST_PREPARED" || exit 1
run -n 3 --dist loadfile --no-loadscope-reorder -m "not root and not browser and not long" \
	tests/{controlplane,nodes,client,accounts} tests
# What takes longest comes first: nobody should wait for it at the end. A fourth lab would leave the processors
# no room for the times that are promised.
mapfile -t labs < <(grep -rlE 'mark\.root\b' --include='test_*.py' tests | sort -r)
run -n 3 --dist loadfile --no-loadscope-reorder -m "root and not browser and not long" \
	tests/lab/test_absence.py "${labs[@]}"
run -n 2 --dist loadfile --no-loadscope-reorder -m "browser and not long" \
	tests/browser/test_{looks,install_script}.py tests/browser/test_*.py
exit $status
