# make demo    build the gallery and serve it on http://localhost:3000
# make test    the test suite, browser included
# Everything goes into .venv; a second run does only what changed.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMPS := $(VENV)/.stamps

.PHONY: demo demo-build test lint types bench clean
