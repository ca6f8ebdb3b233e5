"""Time to plot many runs, and to open a report in a browser.

Usage: python benchmarks/presentation.py RUN_OR_COMPARISON ...   the reports of these folders

Each plot is a process of its own, of synthetic runs with 200 steps. Reports open in headless
Chromium with an empty profile, in a wide and a narrow window; the browser measures the time from
the start of the navigation until the page is loaded, its script has run, and it is laid out.
Writes benchmarks/results/presentation.json and .md."""

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

from weft_rl.report.run_page import write_report

RESULTS = Path(__file__).parent / "results"
COUNTS = (1, 10, 50)
STEPS = 200
WIDTHS = {"desktop": 1200, "narrow": 390}
# scrollWidth makes the browser lay the page out before the clock is read.
SCRIPT = """<script>addEventListener("load", () => {
  const page = document.documentElement.scrollWidth;
  document.title = JSON.stringify({ms: performance.now(), page, width: innerWidth});
});</script></body>"""


def plots(folder: Path) -> list[dict[str, float]]:
    """Seconds of `weft_rl.plot` by number of runs."""
    for run in range(max(COUNTS)):
        rows = [
            {"stage": "rl", "step": step, "reward": 0.5 + 0.4 * math.sin(step / 40 + run)}
            for step in range(1, STEPS + 1)
        ]
        path = folder / f"run{run:02d}"
        path.mkdir()
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    times = []
    for count in COUNTS:
        runs = [str(folder / f"run{run:02d}") for run in range(count)]
        command = [sys.executable, "-m", "weft_rl.plot", *runs, f"out={folder / 'curves.png'}"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append({"runs": count, "seconds": round(time.perf_counter() - start, 2)})
    return times


def opened(report: Path, width: int, folder: Path) -> dict[str, float]:
    """Load time (ms) and widths (pixels) of a report in a window of this width."""
    page = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", report.read_text())
    tried = folder / "tried.html"
    tried.write_text(page.replace("</body>", SCRIPT))
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(f"--user-data-dir={folder / 'browser'}", f"--window-size={width},900"),
            *("--timeout=20000", tried.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    return json.loads(title)


def main(folders: list[Path]) -> None:
    """Measure, print and write the results."""
    with tempfile.TemporaryDirectory() as place:
        drawn = plots(Path(place))
        reports = []
        for folder in folders:
            path = write_report(folder)
            row: dict[str, object] = {"report": folder.resolve().name}
            row["kB"] = round(path.stat().st_size / 1000)
            for name, width in WIDTHS.items():
                row[name] = opened(path, width, Path(place)) if shutil.which("chromium") else None
            reports.append(row)
    result = machine() | {"plots": drawn, "reports": reports}
    (RESULTS / "presentation.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = ["| `weft_rl.plot`, runs | seconds |", "|---|---|"]
    lines += [f"| {row['runs']} | {row['seconds']:.1f} |" for row in drawn]
    lines += ["", "| report | kB | opens in, s | in a narrow window, s |", "|---|---|---|---|"]
    for row in reports:
        times = [f"{row[name]['ms'] / 1000:.2f}" if row[name] else "no Chromium" for name in WIDTHS]
        lines.append(f"| {row['report']} | {row['kB']} | {' | '.join(times)} |")
    (RESULTS / "presentation.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
