# Every target sets up .venv by itself when it is missing or older than the requirement files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
# The interpreter's compile caches: the second run of the same programs starts in seconds.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Huge pages: a step takes its hundreds of MB as one block, and small pages cost a tenth of its time.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: help demo sample styles test test-all lint format lock bench setup clean
help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"diffjax needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/uv pip install --quiet --python $(PY) -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(PY) --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(PY) -r requirements-dev.txt
	@touch $@

# k-diffusion without its dependencies: one of them holds numpy back, and its sampling needs few.
# open_clip, torch-fidelity and lpips without theirs: the torchvision that pip finds may be built for
# another PyTorch.
$(VENV)/.installed-peers: requirements-peers.txt $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-peers.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps k-diffusion==0.1.1.post1 \
	  open-clip-torch==3.3.0 torch-fidelity==0.4.0 lpips==0.1.4
	@touch $@

setup: $(VENV)/.installed-dev  ## create .venv with all that lint and test need

demo: $(VENV)/.installed  ## train a small cascade on emoji and sample it (5 to 10 minutes on 2 cores)
	$(PY) -m diffjax.main --config configs/cascade.py:demo --workdir runs/demo
	$(PY) -m diffjax.sample --workdir runs/demo --prompts configs/demo_prompts.txt --out runs/demo/pictures --overwrite
	@echo
	@echo "Each pair: the 64 px stage, then the 256 px stage, over its prompt. Next:"
	@echo '  $(PY) -m diffjax.sample --workdir runs/demo --prompt "an openmoji drawing of a frog" --seeds 0-7'
	@echo '  $(PY) -m diffjax.main --config configs/cascade.py --workdir runs/emoji    # all emoji, 2.5 hours'

# The prompt goes through the environment: no shell ever reads it.
export PROMPT ?= an openmoji drawing of a red apple
SEEDS ?= 0-3
sample: $(VENV)/.installed  ## draw PROMPT="..." with the cascade that ships, or with WORKDIR=runs/demo (SEEDS=0-3)
	@$(PY) -m diffjax.sample $(if $(WORKDIR),--workdir "$(WORKDIR)") --prompt "$$PROMPT" --seeds "$(SEEDS)" --out out --overwrite

styles: $(VENV)/.installed  ## fetch two more styles of emoji with npm, and make emoji_styles/64
	$(PY) -m diffjax.data.emoji.styles

# Tracing keeps one core busy: a process for each core, at most four, a file's tests in one process.
SPREAD := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-dev  ## the fast tests
	$(PY) -m pytest $(SPREAD)

test-all: $(VENV)/.installed-peers  ## all tests, with PyTorch and other peers to compare with
	$(PY) -m pytest $(SPREAD) -m ''

SCRIPTS := $(filter-out launch/lib.sh launch/cloud.sh launch/loop.sh, $(wildcard launch/*.sh)) launch/slurm.sbatch .ci/run

lint: $(VENV)/.installed-dev  ## format check, lint, types, import contract, shell scripts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck --check-sourced $(SCRIPTS)
	$(BIN)/shfmt --indent 2 --case-indent --diff launch $(SCRIPTS)

format: $(VENV)/.installed-dev  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/shfmt --indent 2 --case-indent --write launch $(SCRIPTS)

lock: $(VENV)/.installed  ## the newest versions that fit, for the machines of launch/
	(echo '# The versions of everything, for machines without a person: made by `make lock`.'; \
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	pyproject.toml --extra tpu --extra cuda --extra hub --extra parquet) > launch/constraints.txt

bench: $(VENV)/.installed  ## time one training step, one sampling step and a whole sampler
	$(PY) -m benchmarks.train_step
	$(PY) -m benchmarks.sample_step

clean:  ## remove .venv, caches and runs
	rm -rf $(VENV) .cache runs out
