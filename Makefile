# make env | demo | test | test-slow | lint        (needs Python 3.11 or newer, git and make)

PYTHON  ?= python3
DATA    ?=
MINUTES ?= 5
OUT     ?= work_dirs/demo

# Each stack is pinned in full, so nothing is resolved; torch then brings the CUDA libraries that it pins itself.
define install_stack
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	$(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --requirements requirements/$(2).txt
	$(1)/bin/uv pip install --quiet --python $(1)/bin/python torch torchvision
	$(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --editable .
	touch $(1)/.ready
endef

.PHONY: env env-onedl demo test test-slow lint format

env: .venv/.ready
env-onedl: .venv-onedl/.ready

.venv/.ready: requirements/openmmlab.txt setup.py
	$(call install_stack,.venv,openmmlab)

.venv-onedl/.ready: requirements/onedl.txt setup.py
	$(call install_stack,.venv-onedl,onedl)

demo: env
	.venv/bin/python tools/demo.py --minutes $(MINUTES) --out $(OUT) $(if $(DATA),--data "$(DATA)")

test: env env-onedl lint
	.venv/bin/python -m pytest -m "not slow"
	.venv-onedl/bin/python -m pytest -m "not slow and not openmmlab_only"

test-slow: env
	.venv/bin/python -m pytest -m slow

lint: env
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: env
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
