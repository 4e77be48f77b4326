# Every target sets itself up; a machine with Python 3.11+ and make is enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TOOLS  := src/isthmus/lab/tools

.PHONY: setup demo lab lab-build lab-test test lint format generate bench lock clean help
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(STAMP) ## install everything into .venv

$(STAMP): pyproject.toml requirements.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements.txt
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --editable .
	@$(BIN)/python -m compileall -q src
	@touch $@

demo: $(STAMP) ## three clusters on this machine, federated; Ctrl-C ends them
	@$(BIN)/meshctl demo

lab: lab-build ## the same three clusters for real, with Istio and bookinfo, until `meshctl lab down`
	@$(BIN)/meshctl lab up

lab-build: $(STAMP) ## build the programs that the lab runs; once
	@$(BIN)/meshctl lab build

lab-test: lab-build ## the walk-through and its checks on the lab (K=NAME: those of one theme; K=vault builds Vault)
	@$(if $(findstring vault,$(K)),$(BIN)/meshctl lab build --with vault)
	@$(BIN)/python -m pytest tests/lab $(if $(K),-k '$(K)')

test: $(STAMP) ## all tests that need only Python packages
	@$(BIN)/python -m pytest -n 2

lint: $(STAMP) ## format, style, types, layers, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m isthmus.api.generate --check
	@$(BIN)/python -m isthmus.install.schema --check
	@$(BIN)/python -m isthmus.cli.reference --check

format: $(STAMP) ## rewrite the sources in the one style
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

generate: $(STAMP) ## CRDs, charts, references and relay messages, from the types
	@$(BIN)/python -m isthmus.api.generate
	@$(BIN)/python -m isthmus.install.schema
	@$(BIN)/python -m isthmus.cli.reference
	@PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -Iisthmus/wire=proto --python_out=src \
	  --pyi_out=src --grpclib_python_out=src isthmus/wire/relay.proto

bench: $(STAMP) ## print the benchmark table (BENCH_JSON=FILE writes it as JSON lines too)
	@$(BIN)/python -m bench

lock: $(STAMP) ## resolve pyproject.toml and what the lab takes from PyPI into requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --extra dev --python-version 3.11 \
	  --no-emit-index-url --no-annotate --no-header -o requirements.txt pyproject.toml
	@echo 'uv' | $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	  --no-emit-index-url --no-annotate --no-header - >> requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	  --no-emit-index-url --no-annotate --no-header -o $(TOOLS)/requirements.txt $(TOOLS)/requirements.in

clean: ## remove what setup made
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
