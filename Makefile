# Needs only make and Python 3.11 or newer. `make demo` is the quickest way in.

PIP := .venv/bin/python -m pip --disable-pip-version-check -qq
CHECKED := ravine tests benchmarks examples docs

# Compiled programs are kept between runs of the tests and the docs; the library itself sets nothing.
CACHE := JAX_COMPILATION_CACHE_DIR=$(CURDIR)/.cache/jax JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
         JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

# A process for each core, four at most: the tests spend their time compiling, and a program compiles on one core.
WORKERS := -n auto --maxprocesses 4 --dist worksteal -q

.PHONY: help demo test test-all lint format docs examples picture bench clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo      fit a VAE to real digits, write two pictures into demo/'
	@echo 'make test      the checks that take minutes      make test-all   every check'
	@echo 'make lint      style, types, layers              make format     apply the style'
	@echo 'make docs      the manual, in docs/_build/html   make bench      side by side with the peers'
	@echo 'make examples RAVINE_DATA=/path/to/data            the worked examples of the manual on real data'
	@echo 'make clean     remove everything that was built'

demo: .venv/.demo
	@.venv/bin/python examples/demo.py --out demo

test: .venv/.dev
	$(CACHE) .venv/bin/python -m pytest $(WORKERS) -m 'not slow'

test-all: .venv/.dev
	$(CACHE) .venv/bin/python -m pytest $(WORKERS)

lint: .venv/.dev
	.venv/bin/ruff check $(CHECKED)
	.venv/bin/ruff format --check $(CHECKED)
	.venv/bin/pyright
	.venv/bin/lint-imports --no-logo

format: .venv/.dev
	.venv/bin/ruff check --fix $(CHECKED)
	.venv/bin/ruff format $(CHECKED)

docs: .venv/.docs
	$(CACHE) .venv/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo 'docs/_build/html/index.html'

# The worked examples of the manual, on the data in the folder RAVINE_DATA. WRITE=1 puts what they print into their pages.
examples: .venv/.dev
	@test -n "$$RAVINE_DATA" || { echo 'name the folder of the data: make examples RAVINE_DATA=/path/to/data' >&2; exit 1; }
	$(CACHE) RAVINE_EXAMPLES=$(if $(WRITE),write,check) .venv/bin/python -m pytest -q --durations=0 tests/test_examples.py

# The picture on the README's first screen is what the demo draws.
picture: demo
	cp demo/imputed.png docs/_static/demo.png

bench: .bench-venv/.ready
	.bench-venv/bin/python benchmarks/run.py

clean:
	rm -rf .venv .bench-venv .cache build dist demo runs docs/_build docs/generated
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A name on the path may be a shim that does not run, so each candidate is asked for its version.
define make_venv
	@set -e; for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "$$($$python --version): creating $(1)"; exec $$python -m venv $(1); fi; \
	done; echo 'Ravine needs Python 3.11 or newer; found none. Install one, or name it: make PYTHON=/path/to/python3.11' >&2; exit 1
endef

.venv/bin/python:
	$(call make_venv,.venv)

.bench-venv/bin/python:
	$(call make_venv,.bench-venv)

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo 'installing what the demo needs'
	@$(PIP) install --no-compile -c constraints.txt -e '.[plot]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo 'installing the library and its checks'
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch .venv/.demo $@

.venv/.docs: .venv/.dev
	@echo 'installing what the manual needs'
	@$(PIP) install -c constraints.txt -e '.[dev,docs]'
	@touch $@

.bench-venv/.ready: pyproject.toml constraints.txt | .bench-venv/bin/python
	@echo 'installing the library and its peers'
	@$(PIP:.venv/%=.bench-venv/%) install -c constraints.txt -e '.[data]' torch==2.13.0
	@touch $@
