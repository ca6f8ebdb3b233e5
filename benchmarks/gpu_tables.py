"""What `gpu.py` measured, as tables."""

from typing import Any


def tables(result: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    (most,) = result["ceilings"]

    def share(done: float) -> str:
        return f"{done:.0f} ({100 * done / most['tera_operations']:.0f} %)"

    trained = ["| 4 x 4,096 tokens | s | x SFT | TFLOP/s of SFT's work | GiB | planned: s | GiB |"]
    trained.append("|---|---|---|---|---|---|---|")
    rows = [*result["cold_start"], *result["nf4"]]
    for row in rows:
        cells = [
            row["what"],
            f"{row['step_s']:.2f}",
            f"{row['step_s'] / rows[0]['step_s']:.2f}",
            share(row["tera_operations"]),
            f"{row['peak_gib']:.1f}",
            f"{row['planned_s']:.2f}",
            f"{row['planned_gib']:.1f}",
        ]
        trained.append(f"| {' | '.join(cells)} |")
    (row,) = result["rl"]
    read = 100 * row["rollout_tera_bytes"] / most["tera_bytes"]
    passes = 8  # the plan's seconds are of one of them
    lines = ["| RL: 6 completions of 256 tokens in 128 steps, 8 passes | |", "|---|---|"]
    lines += [
        f"| iteration | {row['iteration_s']:.1f} s (planned {passes * row['planned_s']:.1f}) |",
        f"| of it the rollout | {row['rollout_s']:.1f} s, {row['forwards']} forwards |",
        f"| TFLOP/s while sampling | {share(row['rollout_tera_operations'])} |",
        f"| weights once a forward, TB/s | {row['rollout_tera_bytes']:.2f} ({read:.0f} %) |",
        f"| a pass there and back, optimizer included | {row['passes_s']:.2f} s |",
        f"| peak | {row['peak_gib']:.1f} GiB (planned {row['planned_gib']:.1f}) |",
    ]
    ceiling = (
        f"{result['machine']['device']}, torch {result['machine']['torch']}: a bfloat16 product of "
        f"8192 x 8192 matrices runs at {most['tera_operations']:.0f} TFLOP/s, a copy moves "
        f"{most['tera_bytes']:.1f} TB/s."
    )
    sampled = [
        "| sampler, 256 tokens in 256 steps | rows | published, s | ours, s | ratio | tokens/s |"
    ]
    sampled.append("|---|---|---|---|---|---|")
    for row in result["sampler"]:
        times = f"{row['published_s']:.1f} | {row['ours_s']:.1f} | {row['ratio']:.2f}"
        sampled.append(f"| {row['what']} | {row['rows']} | {times} | {row['tokens_per_s']:.0f} |")
    blocks = [[ceiling], trained, lines, sampled]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"
