"""The reports' controls in a headless Chromium: scripts, keys, mouse, and nothing is fetched.

A script at the page's end acts as the reader and leaves what it saw in the title."""

import json
import re
import subprocess
from html import escape
from itertools import combinations

import numpy as np
import pytest
from devtools import browsing
from report_folders import (
    CHROMIUM,
    HOSTILE,
    REWARDS,
    STEPS,
    comparison_folder,
    run_folder,
    write_rewards,
)

from weft_rl.ema import time_weighted_ema
from weft_rl.report.run_report import write_report
from weft_rl.runs.atomic_io import write_json

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
    pytest.mark.slow,
]
LOGGED = ("--enable-logging=stderr",)
FOCUS = "document.activeElement.dataset.name ?? document.activeElement.type"


@pytest.fixture
def folder(tmp_path):
    return run_folder(tmp_path / "run")


def opened(page, folder, *flags):
    tried = folder / "tried.html"
    tried.write_text(page)
    argv = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    argv += [f"--user-data-dir={folder / 'browser'}", *flags, tried.as_uri()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def browse(folder, script):
    """The title that the script leaves, and what the browser output on its standard error."""
    page = write_report(folder).read_text()
    page = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page)
    page = page.replace("</body>", f"<script>document.title = {script}</script></body>")
    document, output = opened(page, folder, *LOGGED, "--virtual-time-budget=4000")
    (title,) = re.findall(r"<title>(.*?)</title>", document, re.DOTALL)
    return title, output


def test_the_page_runs_its_own_script_and_no_other(folder):
    write_report(folder)
    report = folder / "report.html"
    injected = report.read_text().replace("</body>", "<script>document.title='in'</script></body>")
    document, output = opened(injected, folder, *LOGGED, "--virtual-time-budget=2000")
    # the chart was drawn by the page's script; the injected one was refused
    assert 'type="range"' in document
    assert "<title>run: report</title>" in document
    assert "Refused to execute inline script" in output or "Content Security" in output


def test_smoothing_zoom_and_lines(folder):
    script = """(() => {
      const root = document.querySelector("[data-widget=chart]");
      const bold = () => root.querySelector("path.bold")?.getAttribute("d") ?? "";
      const inputs = [...root.querySelectorAll("input")];
      const [tick, slider, first, end] = inputs;
      const seen = { static: root.querySelectorAll(".static").length, start: bold() };
      slider.value = 0; slider.dispatchEvent(new Event("input")); seen.raw = bold();
      first.value = 3; first.dispatchEvent(new Event("change"));
      end.value = 10; end.dispatchEvent(new Event("change")); seen.zoomed = bold();
      root.querySelector("button").click(); seen.whole = bold();
      tick.checked = false; tick.dispatchEvent(new Event("change")); seen.hidden = bold();
      return JSON.stringify(seen);
    })()"""
    title, errors = browse(folder, script)
    seen = json.loads(title)
    assert seen["static"] == 0
    assert seen["hidden"] == ""
    assert seen["whole"] == seen["raw"] != seen["start"]

    def heights(path):
        return np.array([float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)])

    assert len(heights(seen["start"])) == len(STEPS)
    assert len(heights(seen["zoomed"])) == 5  # steps 3, 5, 8, 9, 10
    # height on the page is linear in the value: the same line through what Python smooths
    wanted = time_weighted_ema(STEPS, REWARDS, 0.98)
    slope, offset = np.polyfit(wanted, heights(seen["start"]), 1)
    assert slope < 0
    assert np.abs(slope * wanted + offset - heights(seen["start"])).max() < 0.2
    assert "CONSOLE" not in errors


def test_heatmap_and_replay(folder):
    script = """(() => {
      const heat = document.querySelector("[data-widget=entropy_heatmap]");
      const [one, two] = heat.querySelectorAll(".token");
      const slider = heat.querySelector("input");
      slider.value = 0.75; slider.dispatchEvent(new Event("input")); one.focus();
      const play = document.querySelector("[data-widget=denoising_replay]");
      const places = [...play.querySelectorAll(".token")];
      const step = play.querySelector("input");
      const at = value => { step.value = value; step.dispatchEvent(new Event("input"));
        return places.map(place => place.textContent); };
      return JSON.stringify({ details: heat.querySelector(".details").textContent,
        heat: [one, two].map(token => token.style.getPropertyValue("--heat")),
        hidden: heat.querySelector(".controls").hidden, start: at(0), one: at(1), end: at(2),
        output: play.querySelector("output").textContent });
    })()"""
    title, errors = browse(folder, script)
    seen = json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    # 1 - .25^(4/3) = .843, 1 - .25^(2/3) = .603
    assert seen["heat"] == ["0.843", "0.603"]
    assert seen["details"] == "a: entropy 4.000 nats, beta 2.000, t_i 0.843"
    assert seen["hidden"] is False
    assert (seen["start"], seen["one"], seen["end"]) == (["▒", "▒"], ["▒", HOSTILE], ["x", HOSTILE])
    assert seen["output"] == "step 2 of 2"
    assert "CONSOLE" not in errors


def framed(folder, width, body):
    """What the script's body returns of the folder's report in a frame of so many pixels: the
    browser has no window as narrow as a phone."""
    page = write_report(folder).read_text()
    page = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page)
    outer = f"""<!DOCTYPE html><title></title>
    <iframe width="{width}" height="900" style="border: 0" srcdoc="{escape(page)}"></iframe>
    <script>addEventListener("load", () => {{
      const root = document.querySelector("iframe").contentDocument.documentElement;
      document.title = JSON.stringify((() => {{ {body} }})());
    }});</script>"""
    document, _ = opened(outer, folder, "--hide-scrollbars")
    (title,) = re.findall(r"<title>(.*?)</title>", document, re.DOTALL)
    return json.loads(title)


def test_no_sideways_scroll(folder, tmp_path):
    """On a phone the table is widest."""
    body = "const box = root.querySelector('.scroll'); return [box.scrollWidth, box.clientWidth]"
    wide, room = framed(comparison_folder(tmp_path / "arms"), 1100, body)
    assert wide == room
    entry = {"n": 256, "score": 85.2, "ci95": [82.7, 87.7]}
    entry |= {name: dict(entry) for name in ("exact", "valid")}
    write_json(folder / "eval.json", {"rl": {"sudoku": entry}})
    assert framed(folder, 390, "return [root.scrollWidth, root.clientWidth]") == [390, 390]


# each text of the chart: what it says, and its left, right, top and bottom in the chart
TEXTS = """
  const picture = root.querySelector("[data-widget=chart] > svg");
  const outer = picture.getBoundingClientRect();
  return [...picture.querySelectorAll("text")].map(text => {
    const box = text.getBoundingClientRect();
    return [text.textContent, box.left - outer.left, outer.right - box.right,
      box.top - outer.top, outer.bottom - box.bottom, outer.width, outer.height]; });"""


@pytest.mark.parametrize("width", [420, 1100])
@pytest.mark.parametrize("scale", [0.04, 1e-4])
def test_the_charts_numbers_are_whole_and_apart(folder, width, scale):
    write_rewards(folder, {i + 1: scale * (1 - 2 * (i % 2)) for i in range(4)})
    texts = framed(folder, width, TEXTS)
    output = [text for text, *_ in texts]
    assert "step" in output
    assert f"{-scale / 2:g}" in output or f"{-scale:g}" in output
    # two of a hundred pixels: boxes are rounded
    assert min(min(sides[:4]) for _, *sides in texts) >= -0.02
    boxes = [(name, x, w - right, y, h - low) for name, x, right, y, low, w, h in texts]
    for one, other in combinations(boxes, 2):
        beside = one[2] <= other[1] or other[2] <= one[1]
        assert beside or one[4] <= other[3] or other[4] <= one[3], (one, other)


@pytest.fixture
def show(tmp_path):
    return lambda run: browsing(CHROMIUM, write_report(run), tmp_path / "browser")


def test_a_response_is_one_stop_and_arrows_move_in_it(show, folder):
    with show(folder) as page:
        page.js("document.querySelector('[data-widget=entropy_heatmap] input').focus()")
        page.key("Tab")
        assert page.js(FOCUS) == "a"
        page.key("ArrowRight")
        details = "document.querySelector('.details').textContent"
        assert "entropy 1.000 nats, beta 1.000" in page.js(details)
        page.key("ArrowRight")  # the last one stays
        page.key("Home")
        assert page.js(details).startswith("a: entropy 4.000")
        page.key("End")
        page.key("Home")
        page.key("Tab")  # past the tokens behind it
        assert page.js("document.activeElement.textContent") == "play"
        page.key("Enter", "\r")
        replay = "document.querySelector('[data-widget=denoising_replay] {}').textContent"
        page.wait(f"{replay.format('output')} === 'step 2 of 2'")
        page.wait(f"{replay.format('button')} === 'play'")
        assert page.errors == []


def test_fields_tell_the_range_and_a_drag_shows_it(show, folder):
    with show(folder) as page:
        fields = "[...document.querySelectorAll('input[type=number]')].map(field => field.value)"
        page.js("document.querySelector('input[type=number]').select()")
        for digit in "500":
            page.key(digit, digit)
        page.key("Tab")
        assert page.js(fields) == ["1", "20"]
        left, top, width = page.js(
            "(() => { const chart = document.querySelector('[data-widget=chart] > svg');"
            "chart.scrollIntoView(); const at = chart.getBoundingClientRect();"
            "return [at.left, at.top + 50, at.width]; })()"
        )
        page.mouse("mousePressed", left + width / 2, top)
        page.mouse("mouseMoved", left + 0.8 * width, top)
        selected = page.js("document.querySelector('.selection').getBoundingClientRect().width")
        assert selected / width == pytest.approx(0.3, abs=0.01)
        page.mouse("mouseReleased", left + 0.8 * width, top)
        # step = 1 + 19 (720 share - 52) / 656: 9.92 at .5 of the width, 16.18 at .8
        assert page.js(fields) == ["10", "16"]
        page.mouse("mousePressed", left + width / 2, top)
        page.mouse("mouseReleased", left + width / 2, top)
        assert page.js(fields) == ["10", "16"]  # a click is no zoom
        assert page.js("document.querySelectorAll('.selection').length") == 0
        assert page.errors == []


def test_arms_and_bands_of_a_comparison_in_the_dark(show, tmp_path):
    comparison = comparison_folder(tmp_path / "arms")
    for name, scale in (("sft-seed0", 0.1), ("sft-seed1", 0.3), ("weft-seed1", 0.4)):
        write_rewards(comparison / name, {step: scale * step for step in (1, 2, 3)})
    with show(comparison) as page:
        drawn = "['path.bold', 'path[fill-opacity]'].map(of => document.querySelectorAll("
        drawn += "`[data-widget=chart] > svg ${of}`).length)"
        assert page.js(drawn) == [2, 1]  # one run has no band
        page.js("document.querySelector('[type=checkbox]').focus()")
        page.key(" ", " ")
        assert page.js(drawn) == [1, 0]
        page.key(" ", " ")
        assert page.js(drawn) == [2, 1]
        ground = "getComputedStyle(document.body).backgroundColor"
        assert page.js(ground) == "rgb(255, 255, 255)"
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        page.call("Emulation.setEmulatedMedia", features=dark)
        assert page.js(ground) == "rgb(21, 23, 27)"
        assert page.errors == []
