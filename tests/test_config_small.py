"""Options of the small commands: positional arguments, required ones, help."""

from dataclasses import dataclass, field

import pytest

from weft_rl.config.fields import option
from weft_rl.config.load import parse_options
from weft_rl.errors import UserError


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
    ("schema", "argv", "positional", "begin"),
    [
        (ReportLike, [], "run", "run: "),
        (ReportLike, ["a", "b"], "run", "b: "),
        (ReportLike, ["a", "run=b"], "run", "a: "),
        (ReportLike, ["a"], None, "a: "),
        (PlotLike, ["a", "smothing=b"], "runs", "smothing=b: "),
        (PlotLike, ["seeds=[1,x]"], "runs", "seeds=[1,x]: "),
        (PlotLike, ["seeds=${a}"], "runs", "seeds=[${a}]: "),
        (PlotLike, ["smoothing=1"], "runs", "smoothing=1.0: "),
    ],
)
def test_mistakes_in_small_commands(schema, argv, positional, begin):
    with pytest.raises(UserError) as caught:
        small(schema, *argv, positional=positional)
    assert str(caught.value).startswith(begin)


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
        "  --print-config  print the resolved options as YAML and exit",
        "  --help          print this help and exit",
    ]
