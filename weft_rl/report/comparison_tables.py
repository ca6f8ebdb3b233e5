"""A comparison in words and tables, from the content of its comparison.json."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from weft_rl.diffusion.recipes import RECIPES

TITLES = {"base": "base", "cold_start": "cold start", "rl": "then RL"}


def label(arm: str) -> str:
    """An arm's name in prose."""
    return RECIPES[arm].label if arm in RECIPES else arm


def score_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The table of scores, its head first: arm, stage, each score with interval, by seed."""
    names = [result["metric"], *result["others"]]
    rows = [["arm", "stage", *map(_spoken, names), f"{_spoken(names[0])} by seed"]]
    for arm, stages in result["results"].items():
        for stage, entry in stages.items():
            by_seed = ", ".join(f"{value:.1f}" for value in entry["by_seed"].values())
            rows.append([label(arm), TITLES[stage], *_cells(entry, result["others"]), by_seed])
    for name, entry in result["baselines"].items():
        rows.append(["no model", name, *_cells(entry, result["others"]), ""])
    return rows


def _cells(entry: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    parts = [entry, *(entry[name] for name in others)]
    return [f"{part['score']:.1f} {_range(part)}" for part in parts]


def _range(part: Mapping[str, Any]) -> str:
    return f"[{part['ci95'][0]:.1f}, {part['ci95'][1]:.1f}]"


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def difference_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The table of differences, its head first: what is compared, points of each score."""
    names = [result["metric"], *result["others"]]
    rows = [["points", *map(_spoken, names)]]
    for subject, entry in _subjects(result):
        parts = [entry, *(entry[name] for name in result["others"])]
        cells = [f"{part['difference']:+.1f} {_range(part)} {part['verdict']}" for part in parts]
        rows.append([subject, *cells])
    return rows


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Each difference between arms, then each stage's gain, as a sentence on the main score."""
    return [
        f"{subject}: {entry['difference']:+.1f} points {_range(entry)} of "
        f"{_spoken(result['metric'])} over {_seeds(entry['seeds'], result['seeds'])}: "
        f"{entry['verdict']}{_how_sure(entry, len(result['arms']) - 1)}"
        f"{_of_one_seed(entry, result['seeds'])}."
        for subject, entry in _subjects(result)
    ]


def _how_sure(entry: Mapping[str, Any], comparisons: int) -> str:
    """How likely an arm is above its reference, and what would have shown; a gain needs neither,
    and one seed tells neither."""
    if "reference" not in entry or "superiority" not in entry:
        return ""
    said = f"probability of superiority {entry['superiority']:.2f}"
    seeds = len(entry["seeds"])
    alone = comparisons == 1
    # of fewer seeds it differs too much from one repetition to the next
    if "smallest_visible" in entry and seeds >= (3 if alone else 5):
        share = "three of four" if seeds >= (5 if alone else 8) else "two of three"
        said += f"; a true difference of about {entry['smallest_visible']:.1f} would have shown in "
        said += f"roughly {share} such comparisons"
    return f" ({said})"


def _of_one_seed(entry: Mapping[str, Any], asked: Sequence[int]) -> str:
    """The notes say it where only one was asked for."""
    alone = len(entry["seeds"]) == 1 < len(asked)
    return ", with this seed and for new records only" if alone else ""


def _subjects(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Each difference and gain, with what it compares in words."""
    found = []
    for entry in result["differences"]:
        arm, reference = label(entry["arm"]), label(entry["reference"])
        after = f"{arm} then RL against {reference} then RL"
        before = f"{arm} against {reference}, before RL"
        found.append((after if entry["stage"] == "rl" else before, entry))
    for entry in result["gains"]:
        arm = label(entry["arm"])
        found.append((f"RL after {arm}" if entry["stage"] == "rl" else f"{arm} after base", entry))
    return found


def _seeds(used: Sequence[int], asked: Sequence[int]) -> str:
    if len(used) < len(asked):
        return f"{len(used)} of {len(asked)} seeds ({', '.join(map(str, used))})"
    return f"{len(used)} seed{'s' if len(used) > 1 else ''}"


def notes(result: Mapping[str, Any]) -> list[str]:
    """What a reader must know of how far the numbers carry."""
    lines = []
    if result["missing"]:
        lines.append(
            f"Missing: {', '.join(result['missing'])}. A difference is over the seeds that both "
            "of its sides have."
        )
    reference, *others = result["arms"]
    made = {(entry["stage"], entry["arm"]) for entry in result["differences"]}
    for stage, arm in product(("rl", "cold_start"), others):
        both = all(stage in result["results"][name] for name in (reference, arm))
        if both and (stage, arm) not in made:
            when = "after RL" if stage == "rl" else "before RL"
            lines.append(
                f"{label(arm)} and {label(reference)} cannot be compared {when}: no seed in common."
            )
    if len(result["arms"]) > 2:
        lines.append(
            f"Every arm is compared with {label(result['arms'][0])}; better and worse hold after "
            f"Holm's correction for {len(result['arms']) - 1} comparisons. Intervals are each for "
            "itself: one may leave 0 out and its difference not be distinguishable. What RL gains "
            "over a cold start, and it over the base, is not corrected."
        )
    if len(revisions := result.get("revisions", [])) > 1:
        lines.append(f"Its runs are of {len(revisions)} revisions: {', '.join(revisions)}.")
    if len(result["seeds"]) == 1:
        lines.append("With one seed the intervals are for new records, not for new seeds.")
    return lines


def to_markdown(result: Mapping[str, Any]) -> str:
    """The content of comparison.md."""
    seeds = ", ".join(map(str, result["seeds"]))
    lines = [
        f"# {', '.join(map(label, result['arms']))}: each with RL after it",
        f"Task {result['task']}, {result['n']} held-out records, seeds {seeds}. Percent, with 95 % "
        "intervals for new seeds and new records.",
        *notes(result),
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        _markdown_table(score_rows(result)),
        _markdown_table(difference_rows(result)),
    ]
    return "\n\n".join(lines) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))
