"""Markdown tables of the experiments; benchmarks/pages.py inserts them."""

from collections.abc import Callable
from statistics import mean, stdev

from benchmarks.tables import Result, table

# Published gradient norms: max, median, mean. Source: WeFT, Table 5.
_PAPER_NORMS = {"weft_entropy": (646.1, 0.47, 2.02), "weft": (46.2, 0.43, 1.03)}
_ARMS = {"sft": "SFT", "weft": "WeFT", "base": "none", "weft_entropy": "entropy"}


def _score(entry: Result) -> str:
    low, high = entry["ci95"]
    return f"{entry['score']:.1f} [{low:.1f}, {high:.1f}]"


def _difference(entry: Result | None) -> str:
    """Paired difference in points with 95% interval; * if significant."""
    if not entry:
        return ""
    low, high = entry["ci95"]
    mark = "" if entry["verdict"] == "not distinguishable" else " *"
    return f"{entry['difference']:+.1f} [{low:.1f}, {high:.1f}]{mark}"


def objective_evidence(result: Result) -> str:
    """Bias and spread of the cold-start losses against an exact -log p."""
    rows = (
        (
            row["estimator"],
            f"{row['mean']:.3f} ({row['lowest']:.3f} to {row['highest']:.3f})",
            f"{row['token_lowest']:.2f} to {row['token_highest']:.2f}",
            f"{row['spread']:.2f}",
        )
        for row in result["estimators"]
        if "one uniform t" not in row["estimator"]
    )
    head = ["loss", "mean / -log p (range)", "one token's term / exact", "SD"]
    return table(head, rows)


def gradient_norms(result: Result) -> str:
    """Gradient norms of cold starts, mean over seeds, next to the paper's."""
    names = {"weft_entropy": "entropy", "weft": "root of entropy"}
    rows = [
        (
            row["scale"],
            row["normalizer"],
            names[row["stage"]],
            *(f"{row[name]:.1f} ± {row[f'{name}_sd']:.1f}" for name in ("max", "median")),
        )
        for row in result["rows"]
        if row["scale"] == "wide" and row["stage"] in _PAPER_NORMS
    ]
    rows += [
        ("LLaDA-8B, WeFT Table 5", "masked", names[stage], *(f"{each:g}" for each in numbers[:2]))
        for stage, numbers in _PAPER_NORMS.items()
    ]
    return table(["model", "`loss_norm`", "rate", "max", "median"], rows)


def policy_gradients(result: Result) -> str:
    """Distance of each estimator and loss from the true policy gradient."""
    by_remasking: dict[tuple[str, str], Result] = {}
    for row in result["rows"]:
        pair = (row["estimator"], row["loss_type"])
        by_remasking.setdefault(pair, {})[row["remasking"]] = row
    rows = []
    for (estimator, loss), found in by_remasking.items():
        if loss == "wd1" or (loss == "gspo" and not estimator.startswith("elbo")):
            continue  # equals bnpo or elbo: the first pass has a ratio of 1
        drawn, confident = found["random"], found.get("low_confidence")
        bias = [f"{each['bias']:.2f}" if each else "" for each in (drawn, confident)]
        rows.append((estimator, loss, *bias, f"{drawn['noise']:.1f}", f"{drawn['views']:.0f}"))
    head = ["estimator", "loss", "bias, random", "bias, low_confidence", "noise", "views"]
    return table(head, rows)


def objectives(result: Result) -> str:
    """Learning of each estimator and loss from the same cold starts."""
    runs: dict[str, list[Result]] = {}
    for run in result["runs"]:
        runs.setdefault(run["method"], []).append(run)
    rows = []
    for method, each in runs.items():
        after = [run["after"]["score"] for run in each]
        gains = [run["after"]["score"] - run["before"]["score"] for run in each]
        error = f" ± {stdev(gains) / len(gains) ** 0.5:.1f}" if len(gains) > 1 else ""
        forwards = mean(run["forwards"] for run in each)
        rows.append((method, f"{mean(after):.1f}", f"{mean(gains):+.1f}{error}", f"{forwards:.0f}"))
    rows.sort(key=lambda row: -float(row[1]))
    return table(["estimator, loss", "cell accuracy after RL", "gain", "rows"], rows)


def countdown(result: Result) -> str:
    """Countdown end to end, mean over seeds."""
    scores = [mean(row[stage] for row in result["runs"]) for stage in ("base", "sft", "rl")]
    gain = result["gain"]
    row = (
        len(result["runs"]),
        *(f"{score:.1f}" for score in scores),
        f"{gain['mean']:+.1f} [{gain['low']:.1f}, {gain['high']:.1f}]",
        f"{result['best_rule']:.1f}",
    )
    return table(["seeds", "base", "cold start", "RL", "gain", "best fixed signs"], [row])


def comparison(result: Result) -> str:
    """SFT and WeFT before and after RL."""
    found = result["comparison"]
    rows = [
        (f"{_ARMS[arm]}{', then RL' if stage == 'rl' else ''}", stages[stage])
        for stage in ("cold_start", "rl")
        for arm, stages in found["results"].items()
    ]
    rows.insert(0, ("base model", found["results"]["sft"]["base"]))
    rows.append(("row-filling baseline", found["baselines"]["row filling"]))
    lines = ((name, _score(entry), _score(entry["exact"])) for name, entry in rows)
    text = table(["model", "cell accuracy", "solved"], lines)
    for row in found["differences"]:
        after = "after RL" if row["stage"] == "rl" else "before RL"
        points = f"{_difference(row)} points of cell accuracy"
        text += f"\nWeFT - SFT {after}: {points}, {row['verdict']}.\n"
    return text


def study(result: Result) -> str:
    """Cold starts over eight seeds: differences from SFT before and after RL."""
    stages = result["stages"]
    after = {name: {row["arm"]: row for row in rows} for name, rows in stages.items()}
    rows = [
        (
            _ARMS.get(row["arm"], row["arm"]),
            _score(row),
            *(_difference(after[name][row["arm"]]["difference"]) for name in stages),
        )
        for row in sorted(stages["cold start"], key=lambda row: -row["score"])
    ]
    head = ["cold start", "cell accuracy", "- SFT", "- SFT after RL, gspo", "- SFT after RL, bnpo"]
    return table(head, rows)


def regimes(result: Result) -> str:
    """WeFT - SFT after cold starts with other settings and base models."""
    settings = {**result["regimes"]}
    settings |= {name: stages["cold_start"] for name, stages in result["bases"].items()}
    rows = (
        (name, f"{sft['score']:.1f}", _difference(weft["difference"]))
        for name, (sft, weft) in settings.items()
    )
    return table(["setting", "SFT, cell accuracy", "WeFT - SFT"], rows)


# Table name -> results file and renderer.
TABLES: dict[str, tuple[str, Callable[[Result], str]]] = {
    "objective_evidence": ("objective_evidence", objective_evidence),
    "gradient_norms": ("gradient_norms", gradient_norms),
    "policy_gradients": ("policy_gradients", policy_gradients),
    "objectives": ("objectives", objectives),
    "countdown": ("countdown", countdown),
    "comparison": ("experiments", comparison),
    "study": ("study", study),
    "regimes": ("study", regimes),
}
