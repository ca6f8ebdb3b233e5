"""A comparison's report page, sentences and tables, from its comparison.json."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from weft_rl.config.overrides import options_of
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.evaluation.paired_runs import RESULT, require_same_options, run_name
from weft_rl.io.safe_files import parsing
from weft_rl.plot.curves import draw_means, mean_curves, read_curves
from weft_rl.plot.figures import Bar, Line, draw_bars, figure_svg
from weft_rl.report.page import chart, write_page
from weft_rl.runs.folder import CONFIG, REPORT, read_config, read_json

_STAGE_LABELS = {"base": "base", "cold_start": "cold start", "rl": "then RL"}


def write_comparison_report(folder: Path, out: Path | None = None) -> Path:
    """Write a comparison's report, by default its report.html, and return its path.

    Raises UserError for bad files and differing options."""
    out = out or folder / REPORT
    result, settings = read_json(folder / RESULT, {}), read_config(folder)
    with parsing(folder / RESULT):
        arms, seeds = result["arms"], result["seeds"]
        require_same_options(folder, arms, seeds)
        runs = [run_name(arm, seed) for arm in arms for seed in seeds]
        rewards = reward_curves(folder, result)
        values = {
            "held_out": f"{result['task']}, {result['n']} held-out records",
            "notes": notes(result),
            "sentences": sentences(result),
            "scores": score_rows(result),
            "differences": difference_rows(result),
            "bars": _bars(result),
            "curves": _curves(rewards),
            "chart": chart("reward in RL", rewards),
            "recipes": recipe_rows(arms),
            "units": [(run, _link(folder / run / REPORT, out)) for run in runs],
        }
    with parsing(folder / CONFIG):
        options = [f"arms=[{','.join(arms)}]", f"seeds=[{','.join(map(str, seeds))}]"]
        options += [*options_of(settings.get("run", {})), "out=runs/again"]
    command = shlex.join(["python", "-m", "weft_rl.compare", *options])
    return write_page("comparison.html.j2", folder, out, settings, command, **values)


def _link(report: Path, out: Path) -> str:
    """Return the relative link from the page `out` to a report; empty if there is none."""
    return quote(os.path.relpath(report, out.parent)) if report.exists() else ""


def _bars(result: Mapping[str, Any]) -> Markup:
    """Draw the scores of stages and baselines, without the base, which all arms share."""
    scores = {
        f"{label(arm)}, {_STAGE_LABELS[stage]}": entry
        for arm, stages in result["results"].items()
        for stage, entry in stages.items()
        if stage != "base"
    }
    baselines = result["baselines"]
    bars = [
        Bar(name, entry["score"], entry["ci95"], name in baselines)
        for name, entry in (scores | baselines).items()
    ]
    metric = _score_names(result)[0]
    description = f"{metric} of each arm in percent with 95% intervals, as in the table"
    return Markup(figure_svg(draw_bars({f"{metric} (%)": bars}), description))


def _curves(rewards: Mapping[str, list[Line]]) -> Markup | None:
    means = mean_curves(rewards)
    if not means:
        return None
    ends = "; ".join(f"{line.label}, ends at {line.values[-1]:.3f}" for line in means)
    return Markup(figure_svg(draw_means("reward in RL", means), f"reward in RL: {ends}"))


def reward_curves(folder: Path, result: Mapping[str, Any]) -> dict[str, list[Line]]:
    """Return the RL reward curves of each arm's runs, by arm label."""
    curves = {}
    for arm in result["arms"]:
        stages = [read_curves(folder / run_name(arm, seed), "reward") for seed in result["seeds"]]
        curves[label(arm)] = [lines["rl"] for lines in stages if "rl" in lines]
    return curves


def label(arm: str) -> str:
    """Return the display name of an arm."""
    return RECIPES[arm].label if arm in RECIPES else arm


def recipe_rows(arms: Sequence[str]) -> list[list[str]]:
    """Return the table of cold-start recipes; the first row is the header."""
    recipes = [RECIPES[arm] for arm in arms if arm in RECIPES]
    rows = [[each.label, each.rate_words, each.weight] for each in recipes]
    return [["arm", "masking rate", "weight"], *rows]


def score_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of scores by arm and stage; the first row is the header."""
    names = _score_names(result)
    rows = [["arm", "stage", *names, f"{names[0]} by seed"]]
    for arm, stages in result["results"].items():
        for stage, entry in stages.items():
            by_seed = ", ".join(f"{value:.1f}" for value in entry["by_seed"].values())
            rows.append([label(arm), _STAGE_LABELS[stage], *_score_cells(entry, result), by_seed])
    for name, entry in result["baselines"].items():
        rows.append(["no model", name, *_score_cells(entry, result), ""])
    return rows


def _score_names(result: Mapping[str, Any]) -> list[str]:
    return [name.replace("_", " ") for name in (result["metric"], *result["others"])]


def _score_cells(entry: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    return [score_cell(score) for score in _by_name(entry, result)]


def score_cell(entry: Mapping[str, Any]) -> str:
    """Return a score with its interval."""
    return f"{entry['score']:.1f} {_range(entry)}"


def _by_name(entry: Mapping[str, Any], result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return an entry's values by score name; the main score's are at the top level."""
    return [entry, *(entry[name] for name in result["others"])]


def _range(part: Mapping[str, Any]) -> str:
    return f"[{part['ci95'][0]:.1f}, {part['ci95'][1]:.1f}]"


def difference_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of differences in points; the first row is the header."""
    rows = [["points", *_score_names(result)]]
    for subject, entry in _differences(result):
        parts = _by_name(entry, result)
        cells = [f"{part['difference']:+.1f} {_range(part)} {part['verdict']}" for part in parts]
        rows.append([subject, *cells])
    return rows


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Return one sentence per difference between arms, then per gain of a stage."""
    seeds, metric = result["seeds"], _score_names(result)[0]
    lines = []
    for subject, entry in _differences(result):
        used = entry["seeds"]
        over = f"{len(used)} seed{'s' if len(used) > 1 else ''}"
        if len(used) < len(seeds):
            over = f"{len(used)} of {len(seeds)} seeds ({', '.join(map(str, used))})"
        line = f"{subject}: {entry['difference']:+.1f} points {_range(entry)} of {metric} over "
        line += f"{over}: {entry['verdict']}{_certainty(entry, len(result['arms']) - 1)}"
        if len(used) == 1 < len(seeds):
            line += ", with this seed and for new records only"
        lines.append(f"{line}.")
    return lines


def _certainty(entry: Mapping[str, Any], comparisons: int) -> str:
    """Return the probability of superiority and the detectable difference, between arms only."""
    if "reference" not in entry or "superiority" not in entry:
        return ""
    text = f"probability of superiority {entry['superiority']:.2f}"
    seeds, alone = len(entry["seeds"]), comparisons == 1
    # with fewer seeds, smallest_visible varies too much between repetitions
    if "smallest_visible" in entry and seeds >= (3 if alone else 5):
        power = "three of four" if seeds >= (5 if alone else 8) else "two of three"
        text += f"; a true difference of about {entry['smallest_visible']:.1f} would have shown in "
        text += f"roughly {power} such comparisons"
    return f" ({text})"


def _differences(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    rows = []
    for entry in result["differences"]:
        arm, reference = label(entry["arm"]), label(entry["reference"])
        after = f"{arm} then RL against {reference} then RL"
        before = f"{arm} against {reference}, before RL"
        rows.append((after if entry["stage"] == "rl" else before, entry))
    for entry in result["gains"]:
        arm = label(entry["arm"])
        rows.append((f"RL after {arm}" if entry["stage"] == "rl" else f"{arm} after base", entry))
    return rows


def notes(result: Mapping[str, Any]) -> list[str]:
    """Return the limitations: missing runs, several arms or revisions, a single seed."""
    lines = []
    if result["missing"]:
        lines.append(
            f"Missing: {', '.join(result['missing'])}. A difference is over the seeds that both "
            "of its sides have."
        )
    reference, *others = result["arms"]
    compared = {(entry["stage"], entry["arm"]) for entry in result["differences"]}
    lines += [
        f"{label(arm)} and {label(reference)} cannot be compared {when} RL: no seed in common."
        for stage, when in (("rl", "after"), ("cold_start", "before"))
        for arm in others
        if (stage, arm) not in compared
        and all(stage in result["results"][name] for name in (reference, arm))
    ]
    if len(others) > 1:
        lines.append(
            f"Every arm is compared with {label(reference)}; better and worse hold after Holm's "
            f"correction for {len(others)} comparisons. Each interval is uncorrected: it may "
            "exclude 0 although the difference is not distinguishable. Gains of RL over a cold "
            "start, and of a cold start over the base, are not corrected."
        )
    if len(revisions := result.get("revisions", [])) > 1:
        lines.append(f"Its runs are of {len(revisions)} revisions: {', '.join(revisions)}.")
    if len(result["seeds"]) == 1:
        lines.append("With one seed the intervals are for new records, not for new seeds.")
    return lines


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the content of comparison.md."""
    seeds = ", ".join(map(str, result["seeds"]))
    lines = [
        f"# {', '.join(map(label, result['arms']))}: each followed by RL",
        f"Task {result['task']}, {result['n']} held-out records, seeds {seeds}. Percent, with 95% "
        "intervals for new seeds and new records.",
        *notes(result),
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        markdown_table(score_rows(result)),
        markdown_table(difference_rows(result)),
    ]
    return "\n\n".join(lines) + "\n"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a Markdown table; the first row is the header."""
    header, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body))
