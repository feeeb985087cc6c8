# make demo     build the gallery and serve it on http://localhost:3000
# make test     the test suite, real browser included
# make help     the rest
#
# Everything is installed into .venv, pinned by scripts/constraints.txt and package-lock.json; stamp files
# keep a second run to what changed.

PYTHON   ?=
PORT     ?= 3000
WORKERS  ?= 2
PYTEST   ?=

VENV     := .venv
PY       := $(VENV)/bin/python
STAMPS   := $(VENV)/.stamps
PIP      := $(PY) -m pip install --quiet --disable-pip-version-check --no-warn-conflicts -c scripts/constraints.txt
RUNTIME  := src/webkiln/runtime
RUNTIME_SOURCES := $(wildcard $(RUNTIME)/*.json $(RUNTIME)/*.mjs) \
                   $(shell find $(RUNTIME)/src -type f 2>/dev/null)

.PHONY: help demo demo-build test lint types bench bench-llm runtime browser setup lock clean
.DELETE_ON_ERROR:

help:
	@echo "make demo        build the gallery and serve it on http://localhost:$(PORT)"
	@echo "make demo-build  build the gallery into build/demo/"
	@echo "make test        run the tests (PYTEST='-k name' to choose some)"
	@echo "make lint        ruff, import-linter and the pre-commit file checks"
	@echo "make types       mypy --strict and tsc --strict"
	@echo "make bench       measure against onnxruntime-web in Chromium"
	@echo "make bench-llm   measure language models against wllama and onnxruntime-web in Chromium"
	@echo "make clean       remove what was built (.venv too)"

demo: $(STAMPS)/materials $(STAMPS)/runtime
	$(PY) -m webkiln demo --output build/demo --port $(PORT)

demo-build: $(STAMPS)/materials $(STAMPS)/runtime
	$(PY) -m webkiln demo --output build/demo --no-serve

test: $(STAMPS)/materials $(STAMPS)/dev $(STAMPS)/torch $(STAMPS)/runtime browser
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -q $(PYTEST)

lint: $(STAMPS)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

types: $(STAMPS)/dev $(STAMPS)/runtime
	$(VENV)/bin/mypy
	$(PY) scripts/node.py $(RUNTIME)/node_modules/typescript/bin/tsc --noEmit -p $(RUNTIME)

bench: $(STAMPS)/materials $(STAMPS)/dev $(STAMPS)/runtime browser
	$(PY) -m benchmarks

bench-llm: $(STAMPS)/materials $(STAMPS)/dev $(STAMPS)/runtime browser
	$(PY) -m benchmarks.llm

setup: $(STAMPS)/materials $(STAMPS)/dev $(STAMPS)/runtime

runtime: $(STAMPS)/runtime

browser: $(STAMPS)/dev
	@$(PY) scripts/ensure_browser.py

# Resolves the declared ranges afresh, in an environment of its own, and pins what came out.
lock:
	sh scripts/make_venv.sh build/lock
	build/lock/bin/python -m pip install --quiet --upgrade --disable-pip-version-check "pip>=25.1"
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check --group build
	WEBKILN_SKIP_RUNTIME=1 build/lock/bin/python -m pip install --quiet \
	  --disable-pip-version-check --no-build-isolation --group dev -e .
	build/lock/bin/python -m pip freeze --exclude-editable > scripts/constraints.txt

clean:
	rm -rf build dist $(VENV) $(RUNTIME)/dist $(RUNTIME)/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@PYTHON="$(PYTHON)" sh scripts/make_venv.sh $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/base: $(STAMPS)/venv pyproject.toml scripts/constraints.txt
	$(PY) -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(PIP) --group build
	WEBKILN_SKIP_RUNTIME=1 $(PIP) --no-build-isolation -e .
	@touch $@

$(STAMPS)/materials: $(STAMPS)/base scripts/materials.txt
	$(PIP) --no-deps -r scripts/materials.txt
	@touch $@

$(STAMPS)/dev: $(STAMPS)/base
	$(PIP) --group dev
	@touch $@

# torch only as its CPU build: the default one fetches gigabytes of CUDA. Without it the tests of the
# torch frontend are reported as skipped. transformers is the reference for the BERT builder.
$(STAMPS)/torch: $(STAMPS)/dev
	@$(PIP) "torch==2.13.0+cpu" "transformers==5.23.0" 2>/dev/null || \
	  echo "note: no CPU build of torch at hand, the tests of the torch frontend will be skipped"
	@touch $@

$(STAMPS)/runtime: $(STAMPS)/base scripts/build_runtime.py $(RUNTIME_SOURCES)
	$(PY) scripts/build_runtime.py
	@touch $@
