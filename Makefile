# The commands of this project. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
# Faster than pip. It does not read pip's configuration of the machine: if it fails, pip installs.
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes
MANAGE := $(BIN)/python manage.py
# Commands that need settings but no deployment (lint, the OpenAPI file) use those of the tests.
TEST_MANAGE := DJANGO_SETTINGS_MODULE=tests.settings $(MANAGE)
OPENAPI := spectacular --format openapi-json --validate --fail-on-warn
OIDC := tests/support/upstream/oidc_provider
PEER := bench/systems/oidc_provider
CODE := ags tenants providers examples tests manage.py
# Requirements of single providers, of Redis and of traces. If one cannot be installed, `make test` names the tests that did not run.
OPTIONAL := ldap radius redis opentelemetry
OPTIONAL_STAMPS := $(OPTIONAL:%=$(VENV)/%.stamp)
# Debian packages: the servers and the proxy of the tests, the build requirements of python-ldap, and a browser.
PACKAGES := slapd freeradius redis-server pgbouncer haproxy prometheus apache2-bin libapache2-mod-auth-openidc \
  faketime gcc python3-dev libldap-dev libsasl2-dev \
  $(if $(AGS_TEST_CHROMIUM)$(shell command -v chromium),,chromium)

.DEFAULT_GOAL := help
.PHONY: help install prepare demo run check lint test coverage test-full faults bench bench-check bench-growth bench-machines fix lock audit openapi docs migrate serve

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

install: $(VENV)/runtime.stamp ## Make .venv and install what AGS needs to run

demo: install ## Show each step once: server, session token, QR code, sign-on, refresh, sign-out
	@$(BIN)/python examples/demo.py

run: install ## Run the server of the demo, with the admin, until it is interrupted
	@$(BIN)/python examples/demo.py --keep-serving

prepare: $(VENV)/dev.stamp $(OPTIONAL_STAMPS) $(OIDC)/node_modules/.package-lock.json ## Install the development requirements

check: prepare ## Before a commit: check formatting, lint, types and layers; test what has changed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m tests.changed $(ARGS)

test: prepare ## Run the tests, on SQLite and on PostgreSQL
	@$(BIN)/python -m tests $(ARGS)

coverage: prepare ## Run all tests on PostgreSQL, and measure coverage
	@$(BIN)/python -m tests --coverage $(ARGS)

test-full: prepare ## Run all tests on both databases, including the slow ones, and measure coverage
	@$(BIN)/python -m tests --full $(ARGS)

faults: prepare ## Cause faults under load, and print the effects of each
	@$(BIN)/python -m tests.faults $(ARGS)

lint: prepare ## Check formatting, types, layers, dependencies, migrations, OpenAPI, documents, containers
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
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

bench: $(VENV)/bench.stamp $(VENV)/glewlwyd.stamp $(PEER)/node_modules/.package-lock.json ## Compare AGS with a minimal server, a release and other systems, on this machine
	@$(BIN)/python -m bench $(ARGS)

bench-check: $(VENV)/dev.stamp ## Check that no request needs more function calls, SQL statements or bytes
	@PYTHONHASHSEED=0 $(BIN)/python -m bench.check $(ARGS)

fix: $(VENV)/dev.stamp ## Apply the automatic corrections of the linters
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/dev.stamp ## Compile requirements/*.in to *.txt, with hashes
	for name in runtime uv dev bench audit $(OPTIONAL); do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-strip-extras --no-emit-index-url --no-emit-find-links --no-header \
	    requirements/$$name.in --output-file requirements/$$name.txt || exit 1; \
	done

audit: $(VENV)/dev.stamp ## Look up the locked packages in the advisories of OSV; needs the network
	@$(BIN)/python .ci/audit.py --reachable
	@$(MAKE) --no-print-directory $(VENV)/audit.stamp
	@$(BIN)/python .ci/audit.py

openapi: $(VENV)/dev.stamp ## Write openapi.json, and the table of errors in docs/api.md
	$(TEST_MANAGE) $(OPENAPI) --file openapi.json
	$(TEST_MANAGE) shell --no-imports --command "from docs.errors import PAGE, page; PAGE.write_text(page())"

docs: $(VENV)/dev.stamp ## Write the generated pages: the table of errors, the glossary, the path of a request
	$(TEST_MANAGE) shell --no-imports --command "from docs import errors, glossary; \
	  errors.PAGE.write_text(errors.page()); glossary.PAGE.write_text(glossary.page())"
	$(BIN)/python -m bench.request_path --write

migrate: install ## Migrate the database of DATABASE_URL
	$(MANAGE) migrate

serve: install ## Run the production server with the settings in the environment
	@exec $(MANAGE) serve

bench-growth: $(VENV)/dev.stamp ## Measure the speed with many rows, tenants and keys
	@$(BIN)/python -m bench.growth $(ARGS)

bench-machines: $(VENV)/dev.stamp ## Measure the speed with more processes, and the cost of a session token in PostgreSQL
	@$(BIN)/python -m bench.machines $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "AGS needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime.stamp: requirements/runtime.txt | $(VENV)/bin/python
	$(PIP) -r requirements/runtime.txt
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt requirements/uv.txt $(VENV)/runtime.stamp
	$(PIP) -r requirements/uv.txt
	$(UV) -r requirements/dev.txt || $(PIP) -r requirements/dev.txt
	@touch $@

$(VENV)/bench.stamp: requirements/bench.txt $(VENV)/dev.stamp
	$(PIP) -r requirements/bench.txt
	@touch $@

$(VENV)/audit.stamp: requirements/audit.txt $(VENV)/dev.stamp
	$(PIP) -r requirements/audit.txt
	@touch $@

# The authorization server of some tests, and that of the benchmark, for node. Without npm, what needs them is
# skipped and named.
$(OIDC)/node_modules/.package-lock.json $(PEER)/node_modules/.package-lock.json: \
  %/node_modules/.package-lock.json: %/package-lock.json
	@! command -v npm >/dev/null || npm ci --prefix $* --silent --no-audit --no-fund || true

# The following may fail. Then there is no stamp, a message names what is missing, and the next run tries again.
$(VENV)/packages.stamp: | $(VENV)/bin/python
	@tests/packages.sh $(PACKAGES) && touch $@ || echo "Tests that need these packages do not run."

# A server that `make bench` compares with. Debian must not set up a database: the benchmark has its own.
$(VENV)/glewlwyd.stamp: | $(VENV)/bin/python
	@{ command -v glewlwyd >/dev/null || \
	  { echo glewlwyd glewlwyd/config_type select No configuration | debconf-set-selections && \
	    tests/packages.sh glewlwyd dbconfig-no-thanks; }; } && touch $@ || echo "The benchmark leaves Glewlwyd out."

$(OPTIONAL_STAMPS): $(VENV)/%.stamp: requirements/%.txt $(VENV)/dev.stamp | $(VENV)/packages.stamp
	@$(PIP) -r $< && touch $@ || \
	  echo "The packages of $< are missing, so the tests of $* do not run."

# Only one pip at a time may change an environment, also with `make --jobs`.
$(VENV)/radius.stamp: | $(VENV)/ldap.stamp
$(VENV)/redis.stamp: | $(VENV)/radius.stamp
$(VENV)/opentelemetry.stamp: | $(VENV)/redis.stamp
