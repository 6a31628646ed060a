# Everything needed is Python 3.11 or newer with venv, and make: the rest is installed into .venv on first use.

CONFIG  ?= configs/quickstart.py
WORKDIR ?= runs/$(basename $(patsubst configs/%,%,$(CONFIG)))
ARGS    ?=
DATASET ?=
# Tests mostly wait for compilations, which use one core each; a third worker on two cores gains nothing.
WORKERS ?= 2
PYTEST_ARGS ?=
# Any other Python: make setup PYTHON=/path/to/python3.12
PYTHON  ?=
PYTHONS := $(or $(PYTHON),python3.11 python3 python3.12 python3.13 python3.14)

VENV := .venv
PY   := $(VENV)/bin/python

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup train test test-fast test-oldest test-newest attack bench gpu table pages pictures lint docs data pack lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(VENV)/.for-training ## train CONFIG (quick start if not given); WORKDIR=..., ARGS="--config.seed=1 ..."
	$(PY) main.py --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

test: $(VENV)/.for-tests ## check style and type hints, build the site, then run all tests
	@$(MAKE) --no-print-directory --jobs=2 lint docs
	$(PY) -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-fast: $(VENV)/.for-tests ## run the quick tests, without the checks
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(PYTEST_ARGS)

attack: $(VENV)/.for-tests ## kill runs, damage their files, count what ends right (an hour at most; ARGS="--minutes=10 --kills=20 ...")
	$(PY) -m tests.attacks $(ARGS)

bench: $(VENV)/.for-benchmarks ## run the benchmarks (half an hour, an idle machine), compare with the committed ratios
	$(PY) -m benchmarks.speed.suite $(ARGS)

gpu: $(VENV)/.for-training ## on a machine with a GPU: tests, speeds, the paper's recipe in slices (ARGS="--minutes=10")
	PYTHON=$(PY) benchmarks/gpu/session.sh $(ARGS)

table: $(VENV)/.for-training ## train what the accuracy tables miss (two days; goes on where it stopped), write the tables
	$(PY) -m deepnmf_jax.experiments.accuracy $(ARGS)

pages: $(VENV)/.for-tests ## write the tables and draw the pictures of README and docs from the committed records
	$(PY) docs/pages.py
	$(PY) -m docs.draw

pictures: $(VENV)/.for-training ## draw the pictures alone (ARGS="--out=paper --format=pdf" for a paper)
	$(PY) -m docs.draw $(ARGS)

lint: $(VENV)/.for-tests ## check style and type hints
	$(PY) -m ruff check .
	$(PY) -m mypy

# The variable silences what mkdocs-material prints about another program.
docs: $(VENV)/.for-tests ## build the documentation's site into site/; a broken link or a wrong docstring is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build
	@echo "Open site/index.html; with search: $(PY) -m http.server --directory site"

test-oldest: .venv-oldest/.for-tests ## run all tests with the oldest supported versions (.venv-oldest)
	.venv-oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-newest: .venv-newest/.for-tests ## run all tests with the newest versions of everything (.venv-newest; PYTHON=...)
	.venv-newest/bin/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

data: ## download and prepare DATASET, e.g. DATASET=cifar10 (TensorFlow, in .venv-data)
	@if [ -z "$(DATASET)" ]; then \
	  echo "Say which: make data DATASET=cifar10 (or another of TFDS in deepnmf_jax/data/datasets.py)" >&2; exit 2; fi
	@$(MAKE) --no-print-directory .venv-data/.for-data
	.venv-data/bin/python -m deepnmf_jax.data.prepare $(DATASET) $(ARGS)

pack: ## write DATASET to one file, DATASET.pack, read without TFDS (--config.dataset=cifar10.pack)
	@if [ -z "$(DATASET)" ]; then \
	  echo "Say which: make pack DATASET=cifar10 (or another of deepnmf_jax/data/datasets.py)" >&2; exit 2; fi
	@$(MAKE) --no-print-directory $(VENV)/.for-training
	$(PY) -m deepnmf_jax.data.make_pack $(DATASET) $(ARGS)

setup: $(VENV)/.for-tests ## install all that training and the tests need (.venv)

# Of Python 3.11 there is a lock of its own: the newest JAX no longer takes it.
lock: ## write requirements.lock (or, on 3.12 and later, requirements-newest.lock) anew from the newest versions
	@rm -rf .venv-lock
	@$(call environment,.venv-lock)
	@$(call install,.venv-lock,-e '.[test$(COMMA)dev]')
	@lock=$$($(call lock_of,.venv-lock)); \
	{ echo "# The versions tested with $$(.venv-lock/bin/python --version), written by \`make lock\`. The Makefile uses it"; \
	  echo "# as constraints; pip install -r $$lock installs exactly these."; \
	  .venv-lock/bin/python -m pip freeze --disable-pip-version-check --all --exclude pip --exclude-editable; \
	} > $$lock.new && mv $$lock.new $$lock
	@rm -rf .venv-lock

clean: ## remove caches and build products (runs/ and the environments stay)
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path './.venv*' -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

LOCKS := requirements.lock requirements-newest.lock

# A stamp in an environment says what has been installed there; it is renewed when the lists of packages change.
$(VENV)/.for-training: pyproject.toml $(LOCKS)
	@$(call environment,$(VENV))
	@$(call install,$(VENV),-e . $$($(call constraints,$(VENV))))
	@touch $@

$(VENV)/.for-tests: pyproject.toml $(LOCKS)
	@$(call environment,$(VENV))
	@$(call install,$(VENV),-e '.[test$(COMMA)dev]' $$($(call constraints,$(VENV))))
	@touch $@ $(VENV)/.for-training

$(VENV)/.for-benchmarks: pyproject.toml $(LOCKS)
	@$(call environment,$(VENV))
	@$(call install,$(VENV),-e '.[bench]' $$($(call constraints,$(VENV))))
	@touch $@ $(VENV)/.for-training

.venv-oldest/.for-tests: pyproject.toml requirements-oldest.txt
	@$(call environment,.venv-oldest)
	@$(call install,.venv-oldest,-e '.[test]' -c requirements-oldest.txt)
	@touch $@

.venv-newest/.for-tests: pyproject.toml
	@$(call environment,.venv-newest)
	@$(call install,.venv-newest,--upgrade --upgrade-strategy eager -e '.[test]')
	@touch $@

.venv-data/.for-data: pyproject.toml
	@$(call environment,.venv-data)
	@$(call install,.venv-data,-e '.[data]')
	@touch $@

COMMA := ,

# $(call environment,FOLDER): a virtual environment there, unless a working one exists.
define environment
if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
  found=""; \
  for python in $(PYTHONS); do \
    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
  done; \
  if [ -z "$$found" ]; then \
    echo "Python 3.11 or newer is needed; tried: $(PYTHONS)." >&2; \
    echo "On Debian or Ubuntu: apt-get install python3 python3-venv. Or: make PYTHON=/path/to/python3.11" >&2; \
    exit 1; \
  fi; \
  if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
    echo "$$found cannot make virtual environments: its module venv or ensurepip is missing." >&2; \
    echo "On Debian or Ubuntu: apt-get install python3-venv" >&2; \
    exit 1; \
  fi; \
  echo "Creating $(1) with $$("$$found" --version)"; \
  "$$found" -m venv --clear $(1); \
fi
endef

# $(call install,FOLDER,ARGUMENTS): pip install there; networks fail, so it gets three tries.
define install
echo "Installing into $(1) (the first time: about 1 GB, some minutes)"; \
for try in 1 2 3; do \
  if $(1)/bin/python -m pip install --quiet --no-input --disable-pip-version-check $(2); then break; fi; \
  if [ $$try = 3 ]; then echo "pip could not install into $(1): see its message above." >&2; exit 1; fi; \
  echo "pip failed; trying again in 10 s" >&2; sleep 10; \
done
endef

# $(call lock_of,FOLDER): prints which lock is for the Python there.
define lock_of
$(1)/bin/python -c 'import sys; print("requirements.lock" if sys.version_info < (3, 12) else "requirements-newest.lock")'
endef

# $(call constraints,FOLDER): the tested versions.
define constraints
echo -c $$($(call lock_of,$(1)))
endef
