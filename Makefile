# make env | demo | test | test-slow | lint        (needs Python 3.11 or newer, git and make)

PYTHON  ?= python3
DATA    ?=
MINUTES ?= 5
OUT     ?= work_dirs/demo
JOBS    ?= 2

# Each stack is pinned in full, so nothing is resolved; torch then brings the CUDA libraries that it pins itself.
define install_stack
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	$(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --requirements requirements/$(2).txt
	$(1)/bin/uv pip install --quiet --python $(1)/bin/python torch torchvision
	$(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --editable .
	touch $(1)/.ready
endef

# A file's tests share what they train, so they stay in one process; a process has one thread, as there are several.
define pytest
	OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -n $(JOBS) --dist loadscope -m "$(2)"
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
	$(call pytest,.venv,not slow)
	$(call pytest,.venv-onedl,not slow and not openmmlab_only)

test-slow: env
	.venv/bin/python -m pytest -m slow

lint: env
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: env
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
