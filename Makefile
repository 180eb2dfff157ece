# Targets: env demo test test-slow lint types format coverage docs wheel
# Needs Python 3.11 to 3.13, git and make.

PYTHON  ?= python3
DATA    ?=
MINUTES ?= 5
OUT     ?= work_dirs/demo
JOBS    ?= 2

# Every package of a stack is pinned, so nothing is resolved. torch then installs the CUDA
# libraries that it pins itself.
define install_stack
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	$(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --requirements requirements/$(2).txt
	$(1)/bin/uv pip install --quiet --python $(1)/bin/python torch torchvision
	$(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --editable .
	touch $(1)/.ready
endef

# The tests of one file share trained models, so they run in one process. Each process uses one
# thread.
define pytest
	OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -n $(JOBS) --dist loadscope -m "$(2)" $(3)
endef

.PHONY: env env-onedl demo test test-openmmlab test-onedl test-slow lint types format coverage docs wheel

env: .venv/.ready
env-onedl: .venv-onedl/.ready

.venv/.ready: requirements/openmmlab.txt pyproject.toml setup.py
	$(call install_stack,.venv,openmmlab)

.venv-onedl/.ready: requirements/onedl.txt pyproject.toml setup.py
	$(call install_stack,.venv-onedl,onedl)

# The generator of the site is installed only when the site is built.
.venv/.docs: .venv/.ready requirements/docs.txt
	.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --requirements requirements/docs.txt
	touch .venv/.docs

demo: env
	.venv/bin/python tools/demo.py --minutes $(MINUTES) --out $(OUT) $(if $(DATA),--data "$(DATA)")

test: lint test-openmmlab test-onedl

test-openmmlab: env
	$(call pytest,.venv,not slow)

test-onedl: env-onedl
	$(call pytest,.venv-onedl,not slow and not openmmlab_only)

test-slow: .venv/.docs
	.venv/bin/python -m pytest -m slow

lint: env types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: env
	.venv/bin/mypy

format: env
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

coverage: env
	$(call pytest,.venv,not slow,--cov --cov-report=term)

# Any warning fails the build: a broken link, a missing heading, a page outside the navigation, a
# malformed docstring.
docs: .venv/.docs
	.venv/bin/python -m sphinx -W --keep-going -b html docs docs/_build/html

wheel: env
	.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
