# Everything runs from .venv, which `make setup` creates; nothing is installed elsewhere.
PYTHON ?= python3
PYTHON312 ?= python3.12
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-py312 test-min test-extras soak audit lint compare experiments study golden wheel-check

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY)  ## create .venv with the pinned dependencies

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

demo: setup  ## train base -> WeFT -> RL on the tiny model and say where the report lies
	$(BIN)/python -m weft_rl.pipeline stages=[weft,rl]

compare: setup  ## SFT then RL against WeFT then RL, three seeds each
	$(BIN)/python -m weft_rl.compare arms=[sft,weft] seeds=[0,1,2]

experiments: setup  ## the comparison behind docs/experiments.md, and that page
	$(BIN)/python -m weft_rl.compare arms=[sft,weft] seeds=[0,1,2,3,4] out=runs/experiments
	$(BIN)/python benchmarks/experiments.py runs/experiments

study: setup  ## the study of cold starts in docs/experiments.md; hours
	$(BIN)/python benchmarks/study.py runs/study run
	$(BIN)/python benchmarks/study.py runs/study table
	$(BIN)/python benchmarks/pages.py

test: setup  ## run the tests, a process a core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-py312:  ## run the tests on Python 3.12 with torch 2.11 and transformers 5.17, in .venv-py312
	$(PYTHON312) -m venv .venv-py312
	.venv-py312/bin/pip install --quiet -c constraints-py312.txt setuptools
	.venv-py312/bin/pip install --quiet -c constraints-py312.txt --no-build-isolation -e '.[dev]'
	OMP_NUM_THREADS=1 .venv-py312/bin/python -m pytest -n auto --dist loadfile

# what calls other packages; the rest is the same under any of their versions
MIN_TESTS := $(addprefix tests/test_,pipeline.py model.py dream.py sampler.py cold_start_trainer.py \
	diffu_grpo.py rl_against_trl.py rl_stage.py config.py report.py plot.py convert.py adapters.py \
	sources.py tokenizers.py traces.py rewards_math500.py score.py sample.py evaluation.py compare.py)

test-min:  ## run the tests that call other packages with the lowest versions, in .venv-min
	$(PYTHON) -m venv $(VENV)-min
	$(VENV)-min/bin/pip install --quiet --disable-pip-version-check -c constraints-min.txt setuptools
	$(VENV)-min/bin/pip install --quiet --disable-pip-version-check -c constraints-min.txt \
		--no-build-isolation -e . pytest pytest-xdist hypothesis
	OMP_NUM_THREADS=1 $(VENV)-min/bin/python -m pytest -n auto --dist loadfile $(MIN_TESTS)

# releases that d1, LLaDA and dllm pin; an export's tokenizer must load there
OLD_TRANSFORMERS := 4.49.0 4.57.6

test-extras: setup  ## run the tests that need other releases of packages, in .venv-extras
	for version in $(OLD_TRANSFORMERS); do $(PYTHON) -m venv $(VENV)-extras/$$version && \
		$(VENV)-extras/$$version/bin/pip install --quiet --disable-pip-version-check \
		transformers==$$version jinja2 || exit 1; done
	OLD_TRANSFORMERS="$(OLD_TRANSFORMERS:%=$(CURDIR)/$(VENV)-extras/%/bin/python)" \
		$(BIN)/python -m pytest tests/test_old_transformers.py

soak: setup  ## kill runs, break files, fuzz inputs, many times; the table of docs/reliability.md
	$(BIN)/python benchmarks/soak.py

audit:  ## look the pinned versions up among known vulnerabilities; fails where it cannot
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)-audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt || { \
		echo "audit: a finding, or the service that knows them was not reached (see above)"; exit 1; }

lint: setup  ## formatter, linter, type checker, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check --python $(VENV) weft_rl stages rewards
	$(BIN)/lint-imports

golden: setup  ## rewrite the golden option list; read the difference before committing it
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests/test_config.py

wheel-check: setup  ## the built wheel holds exactly the four packages and works elsewhere
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/wheel_check
