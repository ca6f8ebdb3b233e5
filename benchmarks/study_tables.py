"""What `study.py` found, as Markdown tables."""

from typing import Any

NAMES = {"sft": "SFT", "weft": "WeFT", "base": "none"}
STAGE = {"cold_start": "cold start", "rl": "RL (gspo)"}


def _score(row: dict[str, Any], name: str = "") -> str:
    part = row[name] if name else row
    return f"{part['score']:.1f} [{part['ci95'][0]:.1f}, {part['ci95'][1]:.1f}]"


def _difference(row: dict[str, Any]) -> str:
    found = row["difference"]
    if not found:
        return ""
    low, high = found["ci95"]
    return f"{found['difference']:+.1f} [{low:.1f}, {high:.1f}] {found['verdict']}"


def pages(found: dict[str, Any]) -> str:
    """The tables in Markdown."""
    lines: list[str] = [f"Revision {found['revision']}.", ""]
    titles = {
        "cold start": "After the cold start",
        "d1": "After RL under d1's objective (the preset's `bnpo`)",
        "gspo": "After RL under the sequence-level ratio (`rl.loss_type=gspo`)",
    }
    for stage, rows in found["stages"].items():
        lines += [f"### {titles[stage]}", ""]
        lines += ["| cold start | seeds | cells | against SFT | p (Holm) | whole puzzles |"]
        lines += ["|---|---|---|---|---|---|"]
        for row in sorted(rows, key=lambda row: -row["score"]):
            p = _p(row["difference"]["p_holm"]) if row["difference"] else ""
            lines.append(
                f"| {NAMES.get(row['arm'], row['arm'])} | {len(row['by_seed'])} | {_score(row)} | "
                f"{_difference(row)} | {p} | {_score(row, 'exact')} |"
            )
        lines.append("")
    head = "| {} | seeds | SFT, cells | WeFT, cells | WeFT - SFT | would have shown, alone |"
    if found["bases"]:
        lines += [
            "### Other base models",
            "",
            head.format("base, stage"),
            "|---|---|---|---|---|---|",
        ]
        for name, stages in found["bases"].items():
            lines += [_pair(f"{name}, {STAGE[stage]}", rows) for stage, rows in stages.items()]
    if found["estimates"]:
        lines += ["", "### WeFT with estimates kept", ""]
        lines += [
            "Sixteen cold starts of five epochs, run after the others and by later code, so that"
        ]
        lines += ["only they are to be compared:", ""]
        lines += ["| stage | seeds | each step's, cells | the base model's, cells | kept - fresh |"]
        lines += ["|---|---|---|---|---|"]
        lines += [_kept(STAGE[stage], rows) for stage, rows in found["estimates"].items()]
    lines += ["", "### Regimes, after the cold start", "", head.format("regime")]
    lines += ["|---|---|---|---|---|---|"]
    lines += [_pair(name, rows) for name, rows in found["regimes"].items()]
    lines += [
        "",
        "Of the same runs, percent of answers that have 16 digits, and cells right in these:",
    ]
    lines += ["", "| regime | SFT | WeFT | WeFT - SFT | cells, SFT | cells, WeFT |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [_form(name, row) for name, row in found["forms"].items()]
    return "\n".join(lines) + "\n"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _form(name: str, row: dict[str, Any]) -> str:
    sft, weft, d = row["sft"], row["weft"], row["difference"]
    difference = f"{d['mean']:+.1f} [{d['low']:.1f}, {d['high']:.1f}]"
    cells = f"{sft['cells_of_these']:.1f} | {weft['cells_of_these']:.1f}"
    return f"| {name} | {sft['written']:.1f} | {weft['written']:.1f} | {difference} | {cells} |"


def _kept(stage: str, rows: list[dict[str, Any]]) -> str:
    fresh, kept = rows
    seeds = len(kept["difference"]["seeds"])
    return f"| {stage} | {seeds} | {_score(fresh)} | {_score(kept)} | {_difference(kept)} |"


def _pair(name: str, rows: list[dict[str, Any]]) -> str:
    sft, weft = rows
    visible = weft["difference"].get("smallest_visible", "")
    seeds = len(weft["difference"]["seeds"])
    return (
        f"| {name} | {seeds} | {_score(sft)} | {_score(weft)} | {_difference(weft)} | {visible} |"
    )
