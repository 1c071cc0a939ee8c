# Two commands on a fresh machine: `make demo` and `make test`. Both set up what is missing.
# A large CUDA build of torch is what most package indexes serve on Linux; PyTorch's own CPU index saves
# gigabytes:  make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test slow lint benchmark readme clean

# torch first and alone: whatever is installed after it finds the pin satisfied.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q $(PIP_ARGS) -c constraints.txt torch
	$(BIN)/python -m pip install -q $(PIP_ARGS) -c constraints.txt -e ".[demo,dlib,web]"
	touch $@

.venv/developing: .venv/installed
	$(BIN)/python -m pip install -q $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/installed
	$(BIN)/python -m bauta demo -o out/demo
	@echo "Here: $(BIN)/bauta web --demo"

test: .venv/developing lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: .venv/developing
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "slow or not slow"

lint: .venv/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv out dist build
