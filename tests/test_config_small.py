"""Options of the small commands: positional arguments, required ones, help."""

from dataclasses import dataclass, field

import pytest

from weft_rl.config.fields import option
from weft_rl.config.load import parse_options
from weft_rl.errors import UserError

WHOLE = "a whole number in plain digits (not 8.0 or 1e3)"


@dataclass(frozen=True)
class PlotLike:
    """A small command's options."""

    runs: list[str] = field(default_factory=list, metadata={"help": "run folders"})
    seeds: list[int] = field(default_factory=lambda: [0])
    out: str | None = option(None, "where to")
    smoothing: float = option(0.6, "share", at_least=0, below=1)


@dataclass(frozen=True)
class ReportLike:
    """One required text."""

    run: str = field(metadata={"help": "a run folder"})


def small(schema, *argv, positional=None):
    return parse_options(
        schema, argv, command="weft_rl.small", description="About.", positional=positional
    )


def test_positional_arguments():
    many = small(PlotLike, "a", "smoothing=0", "b c", "r/x=1", "seeds=[1,2]", positional="runs")
    assert many == PlotLike(["a", "b c", "r/x=1"], [1, 2], None, 0.0)
    assert small(PlotLike, positional="runs") == PlotLike()
    assert small(ReportLike, "a${b", positional="run") == ReportLike("a${b")
    assert small(ReportLike, "run=null", positional="run") == ReportLike("null")


@pytest.mark.parametrize(
    ("schema", "argv", "positional", "message"),
    [
        (ReportLike, [], "run", "run: is missing; write run=..."),
        (ReportLike, ["a", "b"], "run", "b: there is one run already; keep one"),
        (ReportLike, ["a", "run=b"], "run", "a: run= is given too; keep one of them"),
        (ReportLike, ["a"], None, "a: is not key=value; --help lists the options"),
        (
            PlotLike,
            ["a", "smothing=b"],
            "runs",
            "smothing=b: no such option; did you mean smoothing?",
        ),
        (
            PlotLike,
            ["seeds=[1,x]"],
            "runs",
            f"seeds=[1,x]: must be a list like [a,b], each {WHOLE}; try [1]",
        ),
        (
            PlotLike,
            ["seeds=${a}"],
            "runs",
            f"seeds=[${{a}}]: must be a list like [a,b], each {WHOLE}; try [0]",
        ),
        (PlotLike, ["smoothing=1"], "runs", "smoothing=1.0: must be at least 0, below 1; try 0.6"),
    ],
)
def test_mistakes_in_small_commands(schema, argv, positional, message):
    with pytest.raises(UserError) as caught:
        small(schema, *argv, positional=positional)
    assert str(caught.value) == message


def test_help_of_a_small_command(capsys):
    with pytest.raises(SystemExit):
        small(ReportLike, "--help", positional="run")
    # 40 columns for the option, two spaces
    assert capsys.readouterr().out.splitlines() == [
        "usage: python -m weft_rl.small RUN ... key=value ...",
        "",
        "About.",
        "",
        f"  {'run=':<40}  a run folder",
        "",
        "  --print-config  print the resolved options as YAML and stop",
        "  --help          print this and stop",
    ]
