# All targets use .venv, which `make setup` creates.
PYTHON ?= python3
PYTHON312 ?= python3.12
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-py312 test-min test-extras soak audit lint compare experiments study pages golden wheel-check

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY)  ## create .venv with the pinned dependencies

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

demo: setup  ## train base -> WeFT -> RL on the tiny model and print the path of the report
	$(BIN)/python -m weft_rl.pipeline stages=[weft,rl]

compare: setup  ## compare SFT and WeFT, each with RL after it, on three seeds
	$(BIN)/python -m weft_rl.compare arms=[sft,weft] seeds=[0,1,2]

experiments: setup  ## rerun the comparison of docs/results.md
	$(BIN)/python -m weft_rl.compare arms=[sft,weft] seeds=[0,1,2,3,4] out=runs/experiments
	$(BIN)/python -m experiments.comparison runs/experiments
	$(BIN)/python benchmarks/pages.py

pages: setup  ## fill the tables of README.md and docs/ from benchmarks/results/
	$(BIN)/python benchmarks/pages.py

study: setup  ## rerun the study of cold starts of docs/results.md; takes hours
	$(BIN)/python -m experiments.study runs/study run
	$(BIN)/python -m experiments.study runs/study table
	$(BIN)/python benchmarks/pages.py

test: setup  ## run all tests, one process per core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-fast: setup  ## run the quick tests, in under 90 s
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not gpu"

test-py312:  ## run the tests on Python 3.12 with torch 2.11 and transformers 5.17, in .venv-py312
	$(PYTHON312) -m venv .venv-py312
	.venv-py312/bin/pip install --quiet -c constraints-py312.txt setuptools
	.venv-py312/bin/pip install --quiet -c constraints-py312.txt --no-build-isolation -e '.[dev]'
	OMP_NUM_THREADS=1 .venv-py312/bin/python -m pytest -n auto --dist loadfile

# tests of code that calls other packages
MIN_TESTS := $(addprefix tests/test_,pipeline.py model.py dream.py sampler.py cold_start_trainer.py \
	diffu_grpo.py rl_against_trl.py rl_stage.py config.py report.py plot.py convert.py adapters.py \
	sources.py tokenizers.py traces.py answers.py score.py sample.py evaluation.py compare.py push.py)

test-min:  ## run the tests that call other packages with their lowest versions, in .venv-min
	$(PYTHON) -m venv $(VENV)-min
	$(VENV)-min/bin/pip install --quiet --disable-pip-version-check -c constraints-min.txt setuptools
	$(VENV)-min/bin/pip install --quiet --disable-pip-version-check -c constraints-min.txt \
		--no-build-isolation -e . pytest pytest-xdist hypothesis
	OMP_NUM_THREADS=1 $(VENV)-min/bin/python -m pytest -n auto --dist loadfile $(MIN_TESTS)

# releases pinned by d1, LLaDA and dllm, which must load exported tokenizers
OLD_TRANSFORMERS := 4.49.0 4.57.6
EXTRAS := $(VENV)-extras
EXTRAS_PIP := $(EXTRAS)/bin/pip install --quiet --disable-pip-version-check --no-build-isolation
EXTRAS_TESTS := $(addprefix tests/test_,launchers.py trackers.py sharded.py likelihood.py \
	old_transformers.py cluster_scripts.py smollm2.py byte_level.py token_text.py)

test-extras: setup  ## run the tests of optional packages (ray, deepspeed, lm-eval ...), in .venv-extras
	$(PYTHON) -m venv $(EXTRAS)
	# finds the packages of .venv, so that only the extras are installed
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$($(EXTRAS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	$(EXTRAS_PIP) --ignore-installed 'setuptools>=77'
	$(EXTRAS_PIP) -e '.[deepspeed,lm-eval,ray,submitit,tensorboard,trackio,wandb]'
	$(EXTRAS_PIP) 'bitsandbytes>=0.50.2' || echo "bitsandbytes does not install here; its tests are skipped"
	for version in $(OLD_TRANSFORMERS); do $(PYTHON) -m venv $(EXTRAS)-$$version && \
		$(EXTRAS)-$$version/bin/pip install --quiet --disable-pip-version-check \
		transformers==$$version jinja2 || exit 1; done
	# torchrun is in the other environment
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 OLD_TRANSFORMERS="$(OLD_TRANSFORMERS:%=$(CURDIR)/$(EXTRAS)-%/bin/python)" \
		$(EXTRAS)/bin/python -m pytest $(EXTRAS_TESTS)

soak: setup  ## kill runs, damage files and fuzz inputs; table of docs/fault_tolerance.md
	$(BIN)/python benchmarks/soak.py

audit:  ## check the pinned versions for known vulnerabilities; fails if offline
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)-audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt || { \
		echo "audit: vulnerability found, or service unreachable (see above)"; exit 1; }

lint: setup  ## run formatter, linter, type checker and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check --python $(VENV) weft_rl stages rewards
	$(BIN)/lint-imports

golden: setup  ## rewrite the golden files of options and messages; read the difference
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests/test_config.py tests/test_messages.py

wheel-check: setup  ## build the wheel, check its files, run it outside the repository
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/wheel_check
