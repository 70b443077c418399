# Everything a person types; see README.md. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := wire relay client accounts nodes controlplane tests bench manage.py
STRICT := wire relay client accounts nodes controlplane
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: help install run prepare check deb test test-fast test-browser test-long test-kernel demo walkthrough \
	screenshots bench bench-relay bench-push bench-client bench-panel bench-api bench-policy editor \
	messages locks system clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.server: requirements/server.lock requirements/client.lock | $(BIN)/python
	$(PIP) -r requirements/server.lock
	$(PIP) -r requirements/client.lock
	@touch $@

$(VENV)/.test: requirements/test.lock $(VENV)/.server
	$(PIP) -r requirements/test.lock
	@touch $@

install: $(VENV)/.test ## a .venv with what the server, the client and the tests import

prepare: $(VENV)/.server
	@$(BIN)/python manage.py prepare

run: prepare ## install, migrate, and serve web, relay and jobs on http://127.0.0.1:8080
	@exec $(BIN)/python manage.py serve --downloads

system: ## what the tests need from the distribution (root, Debian)
	@bash deploy/test-system.sh

check: install ## lint, format, types, import contracts, migrations, deployment checks
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports
	$(BIN)/mypy $(STRICT)
	TRENZA_DATA=$$(mktemp -d) $(BIN)/python manage.py makemigrations --check --dry-run
	TRENZA_DATA=$$(mktemp -d) TRENZA_URL=https://vpn.example.com TRENZA_SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(64))') \
		$(BIN)/python manage.py check --deploy --fail-level WARNING

test-fast: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder \
		-m "not root and not browser and not long" tests/controlplane tests/nodes tests/client tests/accounts tests

test: install system ## all tests, in at most 20 minutes on 2 cores
	@bash tests/run.sh

test-long: install system ## soaks, faults, repeats, full fuzzing, the kernel's WireGuard
	@status=0; for kind in "not browser" browser; do \
			$(BIN)/python -m pytest -q -rs -m "long and $$kind" tests || status=1; done; \
		$(BIN)/python -m tests.kernel || status=1; exit $$status

test-kernel: install system ## the lab on the kernel's own WireGuard, in QEMU (about ten times slower)
	$(BIN)/python -m tests.kernel

deb: install ## the client's Debian package, in dist/ (on Debian or Ubuntu)
	@bash deploy/deb/build.sh dist

demo: install system ## root: a server and three nodes behind NATs join, talk, survive a killed server
	$(BIN)/python -m tests.lab.demo

PICTURES ?= build/walkthrough
walkthrough: install system ## root: follow docs/walkthrough.md to the letter, take its pictures (PICTURES=folder)
	$(BIN)/python -m tests.browser.walkthrough $(PICTURES)

screenshots: install system ## pictures of every page, in build/screenshots
	$(BIN)/python -m tests.browser.screenshots build/screenshots

bench: bench-relay bench-push bench-client bench-panel bench-api bench-policy ## all benchmarks

bench-relay: install ## the relay beside derper
	$(BIN)/python -m bench.relay

bench-push: install ## pushes to 1,000 streams on each carrier, and a reconnect storm
	$(BIN)/python -m bench.push

bench-client: install system ## root: the client beside tailscaled: throughput, latency, memory, idling, joining
	$(BIN)/python -m bench.client

bench-panel: install ## the panel's pages with 5,000 devices
	$(BIN)/python -m bench.panel

bench-api: install ## the API's answers with 5,000 devices, and pushes meanwhile
	$(BIN)/python -m bench.api

bench-policy: install ## the policy engine from 100 to 10,000 devices, beside Headscale
	$(BIN)/python -m bench.policy

editor: ## static/vendor/codemirror anew (Node.js and npm), after a change in deploy/editor
	@bash deploy/editor/build.sh

messages: install ## refresh the translation catalogues
	$(BIN)/python manage.py makemessages --all --no-location

locks: $(VENV)/.test ## make the lock files again from requirements/*.in
	for name in server client test; do \
		(cd requirements && ../$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
			--no-emit-index-url --no-emit-find-links -o $$name.lock $$name.in); \
	done

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis bench/build
