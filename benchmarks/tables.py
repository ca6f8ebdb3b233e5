"""Markdown tables of benchmark results; pages.py inserts them."""

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

Result = dict[str, Any]


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table without padding."""
    titles = [*head]
    lines = ("|".join(map(str, line)) for line in (titles, ["---"] * len(titles), *rows))
    return "".join(f"|{line}|\n" for line in lines)


def answers(result: Result) -> str:
    """Verdicts on MATH-500 answers: equivalent spellings and near-misses."""
    spellings, pairs, misses = (result[part] for part in ("spellings", "pairs", "near_misses"))
    wrong = [kind for kind, *_ in misses["right"]]
    rows = [
        ("a key in another spelling", "right", spellings["judged"], len(spellings["wrong"])),
        ("another key", "wrong", pairs["judged"], len(pairs["right"])),
        *((kind, "wrong", n, wrong.count(kind)) for kind, n in misses["judged"].items()),
    ]
    lines = ((name, truth, f"{n:,}", errors) for name, truth, n, errors in rows)
    return table(["answer", "truth", "judged", "judged otherwise"], lines)


def policies(result: Result) -> str:
    """Scores of trivial policies."""
    rows = []
    for row in result["rows"]:
        scores = ", ".join(f"{name} {value:.1f}" for name, value in row["scores"].items())
        rows.append((row["task"], row["policy"], row["n"], scores))
    return table(["task", "answer", "n", "scores, percent"], rows)


def cold_start_overhead(result: Result) -> str:
    """Step time of WeFT over SFT."""
    names = [name for name in result["rows"][0]["seconds"] if name != "SFT"]
    rows = (
        (
            row["vocab_size"],
            row["length"],
            f"{row['seconds']['SFT']:.2f}",
            *(f"{row['seconds'][name] / row['seconds']['SFT']:.2f}" for name in names),
        )
        for row in result["rows"]
    )
    return table(["V", "L", "SFT, s", *names], rows)


def rl_step(result: Result) -> str:
    """Seconds of a pass and of an iteration, compared with d1's loop."""
    rows = [
        (f"{name}, one pass", each["row"], each["group"]) for name, each in result["passes"].items()
    ]
    rows += [
        (f"iteration, mu = {mu}", each["d1"], each["ours"])
        for mu, each in result["iteration"].items()
    ]
    lines = ((what, f"{ours:.2f}", f"{d1 / ours:.1f}") for what, d1, ours in rows)
    return table(["", "CPU s", "d1's loop / weft-rl"], lines)


def sampler(result: Result) -> str:
    """Speed of the sampler relative to the published one, on a CPU."""
    found = [result[part]["found"] for part in ("greedy", "drawn", "ends", "trained")]
    rows = (
        (row["what"], f"{row['published_s']:.0f}", f"{row['ours_s']:.1f}", f"{row['ratio']:.1f}")
        for row in found
    )
    return table(["setting", "published, s", "weft-rl, s", "ratio"], rows)


def sampler_quality(result: Result) -> str:
    """Scores under caches and confidence rules, compared with exact sampling; one block."""
    head = ["mode", "forward passes", "cell accuracy, points", "solved, points", "same tokens"]
    rows = []
    for row in result["quality"]["found"]:
        mode, _, block = row["mode"].rpartition(", block ")
        if block == "32" and mode != "exact" and "prefix, " not in mode:
            drifts = (row[f"{name}_drift"] for name in ("cell_accuracy", "exact"))
            cells = [f"{value:+.1f} [{low:.1f}, {high:.1f}]" for value, low, high in drifts]
            rows.append((mode, row["forwards"], *cells, f"{row['same_completions']:.0f}%"))
    return table(head, rows)


def gpu(result: Result) -> str:
    """Steps of LLaDA-8B's shape on one GPU."""
    (ceiling,), (rl,) = result["ceilings"], result["rl"]
    trained = [*result["cold_start"], *result["nf4"]]
    steps = [
        (
            row["what"].replace("estimates kept 5 epochs", "cached entropies"),
            f"{row['step_s']:.2f}",
            f"{row['step_s'] / trained[0]['step_s']:.2f}",
            f"{100 * row['tera_operations'] / ceiling['tera_operations']:.0f}%",
            f"{row['peak_gib']:.1f}",
            f"{row['planned_gib']:.1f}",
        )
        for row in trained
    ]
    share = 100 * rl["rollout_tera_operations"] / ceiling["tera_operations"]
    memory = (f"{rl['peak_gib']:.1f}", f"{rl['planned_gib']:.1f}")
    steps.append(("RL iteration", f"{rl['iteration_s']:.1f}", "", "", *memory))
    steps.append(("its rollout", f"{rl['rollout_s']:.1f}", "", f"{share:.0f}%", "", ""))
    sampled = (
        (row["what"], row["rows"], f"{row['ours_s']:.1f}", f"{row['ratio']:.2f}")
        for row in result["sampler"]
    )
    machine = result["machine"]
    return (
        f"{machine['device']}, torch {machine['torch']}; peak {ceiling['tera_operations']:.0f} "
        f"TFLOP/s in a bfloat16 matmul.\n\n"
        + table(["step", "s", "x SFT", "of peak", "GiB", "planned GiB"], steps)
        + "\n"
        + table(["sampler, 256 steps", "rows", "s", "published / weft-rl"], sampled)
    )


def loading_memory(result: Result) -> str:
    """Peak memory of loading and converting."""
    rows = (
        (name, f"{result[key] / 1e6:,.0f}")
        for name, key in (
            ("checkpoint", "checkpoint_bytes"),
            ("`convert`", "convert_peak_bytes"),
            ("load as bfloat16", "load_peak_bytes"),
            ("load as float32", "load_as_float32_peak_bytes"),
        )
    )
    return table(["", "MB"], rows)


def real_model(result: Result) -> str:
    """Held-out NELBO and Sudoku scores of SmolLM2 after each stage."""

    def cells(stage: str, label: str) -> tuple[str, ...]:
        entry = result[stage]
        nelbo, score = entry["nelbo"], entry["sudoku"]
        bounds = f"{score['ci95'][0]:.1f}, {score['ci95'][1]:.1f}"
        return (
            label,
            f"{nelbo['before']:.2f}",
            f"{nelbo['mean']:.2f} ({nelbo['se']:.2f})",
            f"{nelbo['unigram_entropy']:.2f}",
            f"{score['score']:.1f} [{bounds}]",
            f"{entry['complete_answers']} of {score['n']}",
        )

    stages = [("a2d", "A2D"), ("sft", "SFT"), ("weft", "WeFT")]
    head = ["after", "NELBO before", "NELBO after (SE)", "unigram entropy"]
    head += ["cell accuracy, %", "complete answers"]
    minutes = sum(result["seconds"].values()) / 60
    return (
        table(head, [cells(stage, label) for stage, label in stages])
        + f"\n{result['a2d']['nelbo']['n']} held-out records, one seed; {result['cpus']} cores, "
        f"{minutes:.0f} minutes from download to reports.\n"
    )


def loss_memory(result: Result) -> str:
    """Memory and time of a training step with all logits at once or in chunks."""
    rows = (
        (
            f"{row['vocab_size']:,}",
            *(f"{row['bytes'][kind] / 2**20:,.0f}" for kind in ("at once", "parts")),
            f"{row['seconds']['parts'] / row['seconds']['at once']:.2f}",
        )
        for row in result["rows"]
        if row["loss"] == "whole step" and row["positions"] == 4096
    )
    return table(["vocabulary", "MiB at once", "MiB in chunks", "time ratio"], rows)


def plan(result: Result) -> str:
    """Planned memory and time of LLaDA-8B's two stages."""
    rows = (
        (
            row["hardware"],
            row["weights"],
            *(f"{row['gib'][stage]:.1f}" for stage in ("weft", "rl")),
            *(f"{row['gpu_hours'][stage]:.1f}" for stage in ("weft", "rl")),
        )
        for row in result["rows"]
    )
    head = ["devices", "weights", "cold start, GiB", "RL, GiB"]
    return table([*head, "cold start, GPU hours", "RL, GPU hours"], rows)


def plan_hours(result: Result) -> str:
    """Planned memory and hours of the rows of `plan` that README.md shows."""
    shown = {
        "1 x RTX 4090, 24 GB": "nf4",
        "1 x H100, 80 GB": "bfloat16",
        "8 x H100, DDP": "bfloat16",
        "8 x H100, FSDP2 or ZeRO-3": "bfloat16",
    }
    rows = []
    for row in result["rows"]:
        devices = int(row["hardware"].split()[0])
        cells = (
            f"{row['gib'][stage]:.1f} GiB, {row['gpu_hours'][stage] / devices:.1f} h"
            for stage in ("weft", "rl")
        )
        if shown.get(row["hardware"]) == row["weights"]:
            rows.append((row["hardware"], row["weights"], *cells))
    return table(["GPUs", "weights", "cold start", "RL"], rows)


def soak(result: Result) -> str:
    """Injected faults and losses."""
    kills, files, fuzz = (result[part]["rows"] for part in ("kills", "files", "fuzz"))
    killed = {key: sum(row[key] for row in kills.values()) for key in ("kills", "runs", "lost")}
    count = f"{killed['kills']} in {killed['runs']} runs"
    rows: list[tuple[object, ...]] = [
        (f"SIGKILL, {len(kills)} stages and commands", count, killed["lost"])
    ]
    broken = sum(row["broken"] for row in files.values())
    rows.append(("damaged checkpoint file", broken, sum(row["lost"] for row in files.values())))
    failed = len(result["fuzz"]["failures"])
    cases = sum(row["cases"] for row in fuzz.values())
    rows.append((f"fuzzed input of {len(fuzz)} kinds", f"{cases:,}", failed))
    return table(["fault", "count", "lost or unhandled"], rows)


def reliability_cost(result: Result) -> str:
    """Training time with safeguards relative to the time without."""
    low, high = min(result["ratios"]), max(result["ratios"])
    return f"Median ratio {median(result['ratios']):.3f}, from {low:.3f} to {high:.3f}.\n"


# Table name -> results file and renderer.
TABLES: dict[str, tuple[str, Callable[[Result], str]]] = {
    render.__name__: (render.__name__, render)
    for render in (
        *(answers, policies, cold_start_overhead, rl_step, sampler, gpu),
        *(loading_memory, loss_memory, plan, real_model, soak, reliability_cost),
    )
}
TABLES["sampler_quality"] = ("sampler", sampler_quality)
TABLES["plan_hours"] = ("plan", plan_hours)
