"""`plan`: parameters, memory and time of a run."""

import sys
from collections.abc import Sequence

from rich.table import Table

from weft_rl.config.config_file import with_config_file
from weft_rl.config.fields import leaves, shown
from weft_rl.config.load import load_run_config, parse_options
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError
from weft_rl.evaluation.settings import evaluation_settings
from weft_rl.io.terminal import Console
from weft_rl.plan.config import HARDWARE, PlanConfig
from weft_rl.plan.estimate import StagePlan, make_plans
from weft_rl.plan.suggestions import suggest

_GIB = 2**30
_ABOUT = f"""{PlanConfig.__doc__} weft-rl run --help lists those.
--config FILE: options of a YAML file, such as a run's config.yaml."""


def main(argv: Sequence[str]) -> int:
    """Print the plan of a run and return the exit status."""
    argv = with_config_file(argv, PlanConfig)
    of_plan = [word for word in argv if word.partition("=")[0] in leaves(PlanConfig)]
    of_run = [word for word in argv if word not in of_plan]
    help_flags = [word for word in of_run if word in ("--help", "-h")]
    options = parse_options(
        PlanConfig, [*of_plan, *help_flags], command="weft_rl.plan", description=_ABOUT
    )
    print_plan(load_run_config(of_run, command="weft_rl.plan"), options)
    return 0


def print_plan(config: RunConfig, options: PlanConfig) -> None:
    """Print memory and time of a run's stages. Raises UserError if no stage trains."""
    plans = make_plans(config, options)
    if not plans:
        raise UserError(
            f"stages=[{','.join(config.stages)}]: no stage trains; name one that does, like weft"
        )
    room = (options.memory_gib or HARDWARE[options.hardware].memory_gib) * _GIB
    Console().print(_table(plans, room, options))
    lines = _remarks(config, options, plans)
    for plan in plans:
        if plan.total_memory > room:
            lines.append(f"{plan.stage} does not fit {room / _GIB:.0f} GiB; change in this order:")
            lines += [
                f"  {each.text}: {each.memory / _GIB:.1f} GiB"
                for each in suggest(config, options, plan.stage, room)
            ]
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _table(plans: Sequence[StagePlan], room: float, options: PlanConfig) -> Table:
    device = f"{options.devices} x {options.hardware}, {room / _GIB:.0f} GiB each"
    table = Table(title=f"optimizer step on one device ({device})")
    for name in ("", *(plan.stage for plan in plans)):
        table.add_column(name, justify="right" if name else "left")
    passes = [sum(each.number for each in plan.passes) for plan in plans]
    tokens_per_s = [plan.tokens / plan.step_s for plan in plans]
    hours = [plan.step_s * plan.steps / 3600 for plan in plans]
    evaluations = [plan.evaluation_s for plan in plans]
    rows = {
        "parameters": [f"{plan.model.num_params:,}" for plan in plans],
        "trained parameters": [f"{plan.model.num_trained:,}" for plan in plans],
        **{
            f"{part}, GiB": [f"{plan.memory[part] / _GIB:.2f}" for plan in plans]
            for part in plans[0].memory
        },
        "memory, GiB": [f"{plan.total_memory / _GIB:.2f}" for plan in plans],
        "fits": ["yes" if plan.total_memory <= room else "no" for plan in plans],
        "forwards": [f"{number:.1f}" for number in passes],
        "seconds per step": [f"{plan.step_s:.3g}" for plan in plans],
        "tokens per second": [f"{number:,.0f}" for number in tokens_per_s],
        "steps": [f"{plan.steps:,}" for plan in plans],
        "hours of training": [f"{number:.2f}" for number in hours],
        "hours of evaluation": ["?" if t is None else f"{t / 3600:.2f}" for t in evaluations],
        "total hours": [f"{plan.hours:.2f}" for plan in plans],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _remarks(config: RunConfig, options: PlanConfig, plans: Sequence[StagePlan]) -> list[str]:
    settings = evaluation_settings(config)
    lines = [
        f"times: {options.utilization:.0%} of the peak FLOP/s (utilization), or reading the weights"
        " once per forward; small batches take longer (launch overhead is not counted)"
    ]
    samplers = [config.sampler] if "rl" in config.trained else []
    samplers += [settings.sampler] if any(plan.evaluation_s for plan in plans) else []
    for name in ("threshold", "factor"):
        values = {getattr(sampler, name) for sampler in samplers} - {None}
        lines += [f"sampler.{name}={value}: one forward per token is counted" for value in values]
    if any(sampler.early_stop for sampler in samplers):
        lines.append("completions that end early (sampler.early_stop) take fewer forwards")
    initial = {"base": "pretrained", "a2d": "adapted"}.get(plans[0].stage)
    if initial:
        lines.append(f"{plans[0].stage}: a run reuses a cached {initial} model if there is one")
    if initial == "adapted" and config.a2d.data == "self":
        lines.append(f"not planned: the answers to a2d.records={config.a2d.records} prompts")
    if config.in_order[0] == "eval":
        lines.append("not planned: evaluation of the model before training")
    if "rl" in config.trained and config.rl.rollout.resample:
        lines.append(
            f"rl.rollout.resample={config.rl.rollout.resample}: further rollouts are not counted"
        )
    lines += [
        f"evaluation after {plan.stage}: not counted, since the number of records of "
        f"eval.data={shown(settings.data)} is unknown; set eval.num_records"
        for plan in plans
        if plan.evaluation_s is None
    ]
    return lines
