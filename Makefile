# The commands of this project. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
# What needs settings but no deployment (lint, the OpenAPI file) runs with those of the tests.
TEST_MANAGE := DJANGO_SETTINGS_MODULE=tests.settings $(MANAGE)
OPENAPI := spectacular --format openapi-json --validate --fail-on-warn
OIDC := tests/upstream/oidc_provider
PEER := bench/systems/oidc_provider
CODE := ags tenants providers examples manage.py
# Requirements of single providers. Where the machine does not allow one, `make test` says what did not run.
OPTIONAL := ldap radius
OPTIONAL_STAMPS := $(OPTIONAL:%=$(VENV)/%.stamp)
# The servers that they ask in the tests, and what python-ldap is built with.
PACKAGES := slapd freeradius gcc python3-dev libldap-dev libsasl2-dev
# Debian starts a server as it installs it. Without these files it cannot, then or later.
NO_SERVICE := $(foreach path,/etc/init.d/slapd /etc/init.d/freeradius */systemd/system/freeradius.service \
  /etc/init.d/glewlwyd */systemd/system/glewlwyd.service, \
  --option 'DPkg::Options::=--path-exclude=$(path)')

.DEFAULT_GOAL := help
.PHONY: help install demo run test lint bench bench-check bench-growth bench-machines fix lock openapi migrate serve

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

install: $(VENV)/runtime.stamp ## Make .venv and install what AGS needs to run

demo: install ## Show the whole way once: server, session token, QR code, sign-on, refresh, sign-out
	@$(BIN)/python examples/demo.py

run: install ## The same set-up, kept running, with the admin
	@$(BIN)/python examples/demo.py --keep-serving

test: $(VENV)/dev.stamp $(OPTIONAL_STAMPS) $(OIDC)/node_modules/.package-lock.json ## Run all tests, on SQLite and on PostgreSQL
	@# The browser tests need Chromium. Where it cannot be installed they fail, and say so.
	@command -v chromium >/dev/null || test -n "$$AGS_TEST_CHROMIUM" || test "$$(id -u)" != 0 || \
	  { apt-get update --quiet=2 && apt-get install --yes --quiet=2 chromium >/dev/null; } || true
	@$(BIN)/python -m tests $(ARGS)

lint: $(VENV)/dev.stamp $(OPTIONAL_STAMPS) ## Check form, types, layers, dependencies, migrations, OpenAPI, documents, containers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(TEST_MANAGE) makemigrations --check --dry-run
	AGS_LOG_LEVEL=WARNING $(TEST_MANAGE) lintmigrations --warnings-as-errors
	$(TEST_MANAGE) $(OPENAPI) --file $(VENV)/openapi.json
	diff openapi.json $(VENV)/openapi.json
	$(BIN)/mkdocs build --strict --site-dir $(VENV)/site
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml

bench: $(VENV)/bench.stamp $(VENV)/glewlwyd.stamp $(PEER)/node_modules/.package-lock.json ## Compare AGS with its floor and its peers, on this machine
	@$(BIN)/python -m bench $(ARGS)

bench-check: $(VENV)/dev.stamp ## Check that no request takes more CPU time than it did
	@PYTHONHASHSEED=0 $(BIN)/python -m bench.check $(ARGS)

fix: $(VENV)/dev.stamp ## Correct what the linters can correct
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/dev.stamp ## Compile requirements/*.in to *.txt, with hashes
	for name in runtime dev bench $(OPTIONAL); do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-strip-extras --no-emit-index-url --no-emit-find-links --no-header \
	    requirements/$$name.in --output-file requirements/$$name.txt || exit 1; \
	done

openapi: $(VENV)/dev.stamp ## Write openapi.json, and the table of errors in docs/api.md
	$(TEST_MANAGE) $(OPENAPI) --file openapi.json
	$(TEST_MANAGE) shell --no-imports --command "from docs.errors import PAGE, page; PAGE.write_text(page())"

migrate: install ## Migrate the database of DATABASE_URL
	$(MANAGE) migrate

serve: install ## Run the production server; everything comes from the environment
	@exec $(MANAGE) serve

bench-growth: $(VENV)/dev.stamp ## Measure whether it stays as fast with many rows, tenants and keys
	@$(BIN)/python -m bench.growth $(ARGS)

bench-machines: $(VENV)/dev.stamp ## Measure what more processes give, and what an issue costs in PostgreSQL
	@$(BIN)/python -m bench.machines $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "AGS needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime.stamp: requirements/runtime.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/bench.stamp: requirements/bench.txt $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

# The authorization server of some tests, and that of the benchmark, for node. Without npm what needs them is left
# out, and says so.
$(OIDC)/node_modules/.package-lock.json $(PEER)/node_modules/.package-lock.json: \
  %/node_modules/.package-lock.json: %/package-lock.json
	@! command -v npm >/dev/null || npm ci --prefix $* --silent --no-audit --no-fund || true

# These two may fail. Then there is no stamp, and the next run tries again. freeradius wants to register a script
# to be started by, so it finds one that does nothing.
$(VENV)/packages.stamp: | $(VENV)/bin/python
	@dpkg --status $(PACKAGES) >/dev/null 2>&1 || { test "$$(id -u)" = 0 && \
	  { test -e /etc/init.d/freeradius || echo '#!/bin/sh' | install -m 755 /dev/stdin /etc/init.d/freeradius; } && \
	  apt-get update --quiet=2 && \
	  DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends $(NO_SERVICE) \
	    $(PACKAGES) >/dev/null; } && touch $@ || true

# A server that `make bench` compares with. It may fail as well; then the benchmark says what it leaves out.
# Debian is to set up no database: the benchmark brings its own. The package reads one of its documents as it is
# installed, which images that leave out all documents lack.
$(VENV)/glewlwyd.stamp: | $(VENV)/bin/python
	@command -v glewlwyd >/dev/null || { test "$$(id -u)" = 0 && apt-get update --quiet=2 && \
	  echo glewlwyd glewlwyd/config_type select No configuration | debconf-set-selections && \
	  DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends $(NO_SERVICE) \
	    --option 'DPkg::Options::=--path-include=/usr/share/doc/glewlwyd/*' \
	    glewlwyd dbconfig-no-thanks >/dev/null; } && touch $@ || true

$(OPTIONAL_STAMPS): $(VENV)/%.stamp: requirements/%.txt $(VENV)/runtime.stamp | $(VENV)/packages.stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $< && touch $@ || \
	  echo "The provider $* lacks what $< names, so its tests do not run."
