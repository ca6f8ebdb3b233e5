"""Options of the commands that make many runs: which seeds, where they run, what a failure does."""

from dataclasses import dataclass, field
from typing import Literal

from weft_rl.config.fields import Block, about, option, require


@dataclass(frozen=True, kw_only=True)
class SweepConfig(Block):
    """Options of `compare` and `reproduce` alike."""

    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2],
        metadata=about("each is a run of every arm", at_least=1),
    )
    workers: int | None = option(
        None,
        "runs at a time; null: one a core, or one in all on a GPU; all of them on a cluster",
        at_least=1,
    )
    launcher: Literal["local", "submitit", "ray"] = option(
        "local", "where runs go: processes here, Slurm's jobs, or Ray's tasks"
    )
    resources: list[str] = field(
        default_factory=list,
        metadata=about("for each run, of submitit [timeout_min=720] or Ray [num_gpus=1]"),
    )
    retries: int = option(
        1, "times that a run is tried again which was killed, interrupted or broke", at_least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for seed in self.seeds:
            require(0 <= seed < 2**32, "seeds", self.seeds, f"{seed} is not from 0 to 2**32 - 1")
            require(self.seeds.count(seed) == 1, "seeds", self.seeds, f"{seed} stands there twice")
        for word in self.resources:
            key, _, value = word.partition("=")
            rule = f"{word} is not key=value"
            require(key.isidentifier() and value != "", "resources", self.resources, rule)
        rule = "processes of this machine ask for nothing; leave it out, or name launcher="
        fits = self.launcher != "local" or not self.resources
        require(fits, "resources", self.resources, rule)

    def requested(self) -> dict[str, int | str]:
        """The resources by name; whole numbers as such."""
        pairs = (word.partition("=") for word in self.resources)
        return {key: int(value) if value.isdecimal() else value for key, _, value in pairs}
