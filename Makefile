# Two commands matter to a newcomer: `make demo` and `make test`. Both set up what they need.

PYTHON ?= python3
export PYTHON
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
WORKERS ?= 3
PYTEST_ARGS ?=

.PHONY: demo test test-all clients conformance check format bench bench-quick bench-full bench-page docs reference man sandbox clean

demo: $(VENV)/core
	@$(BIN)/xnatctl sandbox demo

test: $(VENV)/dev
	$(PY) -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-all: $(VENV)/dev
	HYPOTHESIS_PROFILE=thorough $(PY) -m pytest -n $(WORKERS) --dist worksteal --all \
		--fault-table=docs/reliability.md tests $(PYTEST_ARGS)

clients: .venv-clients/ready .venv-xnat06/ready

conformance: $(VENV)/dev clients
	XNATCTL_CONFORMANCE=required $(PY) -m pytest -vv -n $(WORKERS) --dist worksteal $(PYTEST_ARGS) tests/conformance

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PY) -m pytest -n 0 tests/house

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev
	$(PY) benchmarks/run.py

bench-quick: $(VENV)/dev
	$(PY) benchmarks/run.py --quick

bench-full: $(VENV)/dev
	$(PY) benchmarks/run.py --full
	$(PY) benchmarks/scale.py

# The last `make bench`, and the rows of a `make bench-full` that it does not have, for the docs.
bench-page: $(VENV)/dev
	$(PY) benchmarks/publish.py $(wildcard docs/_build/bench-full.json) docs/_build/bench-usual.json

reference: $(VENV)/core
	$(PY) -m xnatctl.cli.reference

man: $(VENV)/core
	$(PY) -m xnatctl.cli.reference --man docs/_build/man

docs: $(VENV)/docs
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

sandbox: $(VENV)/core
	$(BIN)/xnatctl sandbox serve --port 8080 --root .demo/sandbox --seed demo

clean:
	rm -rf $(VENV) .venv-clients .venv-xnat06 .demo docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# --- environments ------------------------------------------------------------------------------

$(VENV)/core: pyproject.toml
	@test -x $(PY) || sh .ci/venv $(VENV)
	@echo "installing xnatctl into $(VENV) …"
	@$(PY) -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/dev: pyproject.toml
	@test -x $(PY) || sh .ci/venv $(VENV)
	@echo "installing xnatctl and its development tools into $(VENV) …"
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/core

$(VENV)/docs: pyproject.toml
	@test -x $(PY) || sh .ci/venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[docs]'
	@touch $@

# Other people's clients, each set in its own environment: `make test` skips those that are missing.
.venv-%/ready: tests/conformance/%.txt
	@test -x .venv-$*/bin/python || sh .ci/venv .venv-$*
	@echo "installing $< into .venv-$* …"
	@.venv-$*/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@
