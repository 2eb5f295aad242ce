# Everything starts here: `make up` and `make test` need Python 3.11 or newer, and nothing else.
.DEFAULT_GOAL := help
.PHONY: help up test check browser api-fuzz faults soak fuzz bench model lock install audit sdk docs wheels wheel-check

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
PIP_FLAGS := --require-hashes --disable-pip-version-check --no-input --quiet
UV_VERSION := 0.13.9
# A file's tests stay together, and files are taken in the order of their folders: what boots whole stacks comes first,
# units last, so that all end together. Three processes, each with servers of its own: a test waits for half of its
# time, and two cores carry them. PARALLEL= for one.
SPREAD := --dist loadfile --no-loadscope-reorder
PARALLEL ?= -n 3 $(SPREAD)
RUN := $(BIN)/python
REQUESTS ?= 10000
# What speaks to the database in SQL of its own, on the older server too.
ON_POSTGRES_16 := $(foreach part,schema dispatch runs overlap pausing plans history,tests/integration/test_$(part).py)

help:
	@echo 'make up      start everything in the foreground; Ctrl-C stops it'
	@echo 'make test    run the tests; ARGS=tests/unit chooses, UPBEAT_TEST_POSTGRES=16 the older server'
	@echo 'make check   what CI runs: lint, types, tests with coverage'
	@echo 'make browser Swagger UI in a real browser; UPBEAT_TEST_BROWSER names a Chromium'
	@echo 'make api-fuzz REQUESTS=10000  schemathesis against the stack, as each kind of caller; UPBEAT_TEST_SEED repeats'
	@echo 'make faults  every fault with the real leases (25 minutes); UPBEAT_TEST_SEED repeats one'
	@echo 'make soak    all kinds of fault at random under load, with plots; MINUTES=30'
	@echo 'make fuzz    what strangers send, at length; EXAMPLES=5000'
	@echo 'make bench   measure, beside the peers, into docs/benchmarks.md (20 minutes); ONLY=engine is a part, ARGS=--quick 5 minutes'
	@echo 'make sdk     write the generated part of sdk/ from openapi.json'
	@echo 'make model   what more beats and workers than this machine has would do; writes docs/model.md'
	@echo 'make docs    the site of docs/, with the reference, in build/site'
	@echo 'make wheels  upbeat and upbeat-sdk, in dist/; make wheel-check installs them in an empty environment'
	@echo 'make lock    compile requirements/ from pyproject.toml and bench.in'

up: $(VENV)/.installed-embedded
	@exec $(BIN)/python -m app.cli up --attached

test: $(VENV)/.installed-dev
	$(RUN) -m pytest $(PARALLEL) $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/coverage erase
	$(MAKE) test RUN='$(BIN)/coverage run'
	UPBEAT_TEST_POSTGRES=16 $(MAKE) test RUN='$(BIN)/coverage run' PARALLEL= ARGS='-q $(ON_POSTGRES_16)'
	$(MAKE) browser
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# A Chromium of the system: what is there, else Debian's, where we may install it. The tests say it when there is none.
browser: $(VENV)/.installed-dev
	@test -n "$(UPBEAT_TEST_BROWSER)" || command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	    || command -v google-chrome >/dev/null || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null \
	    || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; }
	$(RUN) -m pytest -m browser tests/browser $(ARGS)

api-fuzz: $(VENV)/.installed-dev
	@UPBEAT_TEST_API_REQUESTS=$(REQUESTS) $(BIN)/python -m pytest -q -s --timeout 3600 tests/fuzz $(ARGS)

faults: $(VENV)/.installed-dev
	@UPBEAT_TEST_FAULTS=full $(BIN)/python -m pytest -n 2 $(SPREAD) --timeout 900 tests/faults tests/integration/test_proxy.py $(ARGS)

MINUTES ?= 30
soak: $(VENV)/.installed-dev
	@$(BIN)/python -m bench.soak --minutes $(MINUTES) $(ARGS)

EXAMPLES ?= 5000
fuzz: $(VENV)/.installed-dev
	@UPBEAT_TEST_FUZZ=$(EXAMPLES) $(BIN)/python -m pytest --timeout 3600 tests/unit/test_fuzz.py tests/integration/test_fuzz.py $(ARGS)

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(ARGS)
	@$(BIN)/python -m bench.page $(filter --quick,$(ARGS))

model: $(VENV)/.installed-dev
	@$(BIN)/python -m bench.model $(ARGS)

# After a change of openapi.json; a test says when it is due.
sdk: $(VENV)/.installed-dev
	@PYTHONPATH=sdk:sdk/src $(BIN)/python -m codegen

docs: $(VENV)/.installed-dev
	@PYTHONPATH=.:sdk/src $(BIN)/python -m docs.generate
	@$(BIN)/zensical build --clean --strict
	@echo 'build/site/index.html'

wheels: $(VENV)/.installed-dev
	@rm -rf dist
	@$(BIN)/python -m hatchling build -t wheel -d dist
	@cd sdk && ../$(BIN)/python -m hatchling build -t wheel -d ../dist

# As somebody installs it who has nothing of this: every module can be imported, the command starts.
wheel-check: wheels
	@rm -rf build/empty && $(BIN)/python -m venv build/empty
	@build/empty/bin/pip install $(PIP_FLAGS) -r requirements/server.txt
	@build/empty/bin/pip install --no-deps --no-index --quiet dist/*.whl
	@build/empty/bin/pip check
	@cd build/empty && env -u PYTHONPATH bin/upbeat --help >/dev/null
	@cd build/empty && env -u PYTHONPATH bin/python -c 'import importlib, pkgutil, app, upbeat_sdk; \
	    print(len([importlib.import_module(m.name) for p in (app, upbeat_sdk) for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".") \
	    if not m.name.endswith(("__main__", "telemetry"))]), "modules can be imported")'

install: $(VENV)/.installed-dev

# Against the known advisories; --strict: a package that could not be looked up is a failure too.
audit: $(VENV)/.installed-dev
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements/server.txt

# A changed lock is installed at the next call; the development set contains the embedded one.
$(VENV)/.installed-dev: requirements/dev.txt | $(BIN)/pip
	@echo 'Installing the pinned packages of $< into $(VENV) …'
	@$(BIN)/python -m pip install $(PIP_FLAGS) -r $<
	@touch $@ $(VENV)/.installed-embedded

$(VENV)/.installed-embedded: requirements/embedded.txt | $(BIN)/pip
	@echo 'Installing the pinned packages of $< into $(VENV) (once; about a minute) …'
	@$(BIN)/python -m pip install $(PIP_FLAGS) -r $<
	@touch $@

$(BIN)/pip:
	@for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	    if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        $$candidate -m venv $(VENV) && exit 0; \
	        echo 'Python cannot make a virtual environment: install its venv module' \
	            '(Debian, Ubuntu: apt install python3-venv), then run this again.' >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo 'Python 3.11 or newer was not found. Install it (Debian, Ubuntu: apt install python3 python3-venv),' \
	    'or name it: make PYTHON=/path/to/python3.11 …' >&2; \
	exit 1

lock: | $(BIN)/pip
	@test -x .venv-lock/bin/uv || { $(BIN)/python -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv==$(UV_VERSION); }
	@for set in server 'embedded --extra embedded' 'dev --extra embedded --extra dev --extra docs --extra otel'; do \
	    set -- $$set; name=$$1; shift; \
	    .venv-lock/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate --no-header \
	        --no-emit-package upbeat-sdk "$$@" pyproject.toml --output-file requirements/$$name.txt; \
	done
	.venv-lock/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate --no-header \
	    requirements/bench.in --output-file requirements/bench.txt
