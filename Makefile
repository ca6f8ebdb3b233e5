# All targets use .venv, which `make setup` creates.
PYTHON ?= python3
PYTHON312 ?= python3.12
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-py312 test-min test-extras soak audit lint compare experiments study pages golden wheel-check

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY)  ## create .venv with the pinned dependencies

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

demo: setup  ## train base -> WeFT -> RL on the toy model and print the path of the report
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

test: setup  ## run the tests, one process per core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-py312:  ## run the tests on Python 3.12, torch 2.11 and transformers 5.17, in .venv-py312
	$(PYTHON312) -m venv .venv-py312
	.venv-py312/bin/pip install --quiet -c constraints-py312.txt setuptools
	.venv-py312/bin/pip install --quiet -c constraints-py312.txt --no-build-isolation -e '.[dev]'
	OMP_NUM_THREADS=1 .venv-py312/bin/python -m pytest -n auto --dist loadfile

# tests of code that calls other packages
MIN_TESTS := $(addprefix tests/test_,pipeline.py model.py dream.py sampler.py cold_start_trainer.py \
	diffu_grpo.py rl_against_trl.py rl_stage.py config.py report.py plot.py convert.py adapters.py \
	sources.py tokenizers.py traces.py rewards_math500.py score.py sample.py evaluation.py compare.py)

test-min:  ## run the tests that call other packages with their lowest versions, in .venv-min
	$(PYTHON) -m venv $(VENV)-min
	$(VENV)-min/bin/pip install --quiet --disable-pip-version-check -c constraints-min.txt setuptools
	$(VENV)-min/bin/pip install --quiet --disable-pip-version-check -c constraints-min.txt \
		--no-build-isolation -e . pytest pytest-xdist hypothesis
	OMP_NUM_THREADS=1 $(VENV)-min/bin/python -m pytest -n auto --dist loadfile $(MIN_TESTS)

# releases pinned by d1, LLaDA and dllm, which must load exported tokenizers
OLD_TRANSFORMERS := 4.49.0 4.57.6

test-extras: setup  ## run the tests that need other package releases, in .venv-extras
	for version in $(OLD_TRANSFORMERS); do $(PYTHON) -m venv $(VENV)-extras/$$version && \
		$(VENV)-extras/$$version/bin/pip install --quiet --disable-pip-version-check \
		transformers==$$version jinja2 || exit 1; done
	OLD_TRANSFORMERS="$(OLD_TRANSFORMERS:%=$(CURDIR)/$(VENV)-extras/%/bin/python)" \
		$(BIN)/python -m pytest tests/test_old_transformers.py

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

golden: setup  ## rewrite the golden option list; review the diff
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests/test_config.py

wheel-check: setup  ## build the wheel, check its content and run it elsewhere
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/wheel_check
