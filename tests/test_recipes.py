"""The tables of cold starts, RL losses and estimators, and what reads them."""

import inspect
import json
import pkgutil
from importlib import import_module

import pytest
from transformers import Trainer

import weft_rl.trainers
from weft_rl.config.load import load_run_config
from weft_rl.config.schema import COLD_STARTS, RunConfig
from weft_rl.diffusion.recipes import RECIPES, Recipe
from weft_rl.diffusion.rl_methods import ESTIMATORS, RL_LOSSES
from weft_rl.errors import UserError
from weft_rl.pipeline.run import main
from weft_rl.plan.config import PlanConfig
from weft_rl.plan.estimate import make_plan
from weft_rl.report.comparison import label
from weft_rl.stages import STAGE_RUNNERS
from weft_rl.trainers.infra.compat import PRIVATE_OVERRIDES


def test_options_stages_and_labels_read_the_table_of_cold_starts():
    assert tuple(RECIPES) == COLD_STARTS
    assert {"base", "a2d", *RECIPES, "rl"} == {*STAGE_RUNNERS}
    assert all(name == recipe.name and recipe.source for name, recipe in RECIPES.items())
    assert [label(name) for name in RECIPES] == [recipe.label for recipe in RECIPES.values()]
    assert load_run_config([f"stages=[{','.join(RECIPES)}]", "cold_start.ref_model=x"], command="t")


def test_recipes_fix_what_their_names_promise():
    paper, exact, weft = (
        RECIPES[name].resolved("none", True) for name in ("weft_paper", "weft_exact", "weft")
    )
    assert (paper.rates, paper.loss_norm, paper.exact_elbo) == ("sqrt_entropy", "masked", False)
    assert (exact.rates, exact.loss_norm, exact.exact_elbo) == ("sqrt_entropy", "answer", True)
    assert (weft.rates, weft.loss_norm, weft.exact_elbo) == ("sqrt_entropy", "none", True)


def test_which_recipes_need_a_pass_or_a_reference():
    without = {name for name, recipe in RECIPES.items() if not recipe.needs_entropy}
    assert without == {"sft", "dream", "dft", "rho1"}
    assert [name for name, recipe in RECIPES.items() if recipe.needs_reference] == ["rho1"]
    assert Recipe("a", "A", "nll").statistic == "nll"
    assert Recipe("a", "A", "uniform", "sqrt_entropy").statistic == "entropy"


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("loss", RL_LOSSES)
def test_options_take_the_valid_pairs(loss, estimator):
    words = [f"rl.loss_type={loss}", f"rl.estimator={estimator}", "rl.kl_coef=0"]
    if estimator in RL_LOSSES[loss].estimators:
        assert load_run_config(words, command="t").rl.loss_type == loss
    else:
        with pytest.raises(UserError, match=rf"^rl.loss_type={loss}: "):
            load_run_config(words, command="t")
    assert isinstance(RunConfig().rl.estimator, str)


@pytest.mark.slow
def test_an_alias_needs_one_record(start, tmp_path):
    """`gift` is weft under another name, for stages, evaluation, report and planner."""
    words = ["preset=tiny", f"model={start}", "device=cpu", "cold_start.records=8"]
    words += ["cold_start.epochs=2", "cold_start.batch_size=4", "sampler.steps=4"]
    words += ["rl.num_prompts=2", "rl.num_generations=2", "rl.max_steps=2", "eval.num_records=2"]
    runs, plans = {}, {}
    for name in ("weft", "gift"):
        given = [*words, f"stages=[{name},rl]", f"out={tmp_path / name}"]
        assert main(given) == 0
        rows = (tmp_path / name / "metrics.jsonl").read_text().replace(f'"{name}"', '"it"')
        lines = [json.loads(row) for row in rows.splitlines()]
        runs[name] = [{key: row[key] for key in row.keys() - {"time_s"}} for row in lines]
        plans[name] = make_plan(load_run_config(given, command="t"), PlanConfig("cpu"), name)
    assert runs["gift"] == runs["weft"]
    assert plans["gift"]._replace(stage="") == plans["weft"]._replace(stage="")
    assert "cold start: GIFT" in (tmp_path / "gift" / "report.html").read_text()
    assert {"gift", "rl"} <= {*json.loads((tmp_path / "gift" / "eval.json").read_text())}


def _classes():
    for module in pkgutil.walk_packages(weft_rl.trainers.__path__, "weft_rl.trainers."):
        for _, each in inspect.getmembers(import_module(module.name), inspect.isclass):
            if issubclass(each, Trainer) and each.__module__.startswith("weft_rl"):
                yield each


def test_the_list_of_private_overrides_is_complete():
    found = set()
    for each in _classes():
        bases = [base for base in each.__mro__ if not base.__module__.startswith("weft_rl")]
        theirs = {name for base in bases if base is not object for name in vars(base)}
        names = {name for name in vars(each) if name.startswith("_") and name[1] != "_"}
        found |= names & theirs - {"_abc_impl"}
    assert found == {*PRIVATE_OVERRIDES}
