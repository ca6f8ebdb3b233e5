"""Options of sweep commands, and the arguments for their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from weft_rl.config.config_file import with_config_file
from weft_rl.config.fields import Block, about, leaves, option, require, shown
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SweepConfig(Block):
    """Options that `compare` and `reproduce` share."""

    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2],
        metadata=about("seeds; each is a run of every arm", at_least=1),
    )
    workers: int | None = option(
        None,
        "runs at a time; null: one per core, one on a GPU, all of them on a cluster",
        at_least=1,
    )
    launcher: Literal["local", "submitit", "ray"] = option(
        "local", "where runs execute: local processes, Slurm jobs, or Ray tasks"
    )
    resources: list[str] = field(
        default_factory=list,
        metadata=about("resources of each run: submitit's [timeout_min=720] or Ray's [num_gpus=1]"),
    )
    retries: int = option(1, "retries of a run that was killed, interrupted or failed", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for seed in self.seeds:
            require(0 <= seed < 2**32, "seeds", self.seeds, f"{seed} is not from 0 to 2**32 - 1")
            require(self.seeds.count(seed) == 1, "seeds", self.seeds, f"{seed} is listed twice")
        for item in self.resources:
            key, _, value = item.partition("=")
            valid = key.isidentifier() and value != ""
            require(valid, "resources", self.resources, f"{item} is not key=value")
        rule = "local processes take no resources; leave it out, or set launcher"
        fits = self.launcher != "local" or not self.resources
        require(fits, "resources", self.resources, rule)

    def requested(self) -> dict[str, int | str]:
        """Return the resources by name; integers are converted to int."""
        pairs = (item.partition("=") for item in self.resources)
        return {key: int(value) if value.isdecimal() else value for key, _, value in pairs}


def split_arguments(
    argv: Sequence[str], schema: type[Any], reserved: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Split arguments into those of `schema`, with flags and bare words, and those of the runs.

    reserved: options that the command sets, with error messages. Raises UserError for them."""
    for_schema, for_runs = [], []
    schema_keys, run_keys = leaves(schema), leaves(RunConfig)
    for argument in with_config_file(argv, schema, reserved):
        key, equals, _ = argument.partition("=")
        if key in reserved and equals:
            raise UserError(f"{shown(argument)}: {reserved[key]}")
        # suggest the command's option for a misspelled key, not the runs' option
        misspelled = key not in run_keys and get_close_matches(key[:100], schema_keys, 1)
        is_own = key in schema_keys or misspelled or not equals
        (for_schema if is_own else for_runs).append(argument)
    return for_schema, for_runs
