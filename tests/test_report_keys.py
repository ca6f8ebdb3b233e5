"""The reports under real keys and a real mouse, in a headless Chromium."""

import pytest
from devtools import browsing
from run_folders import write_lines
from test_comparison_report import folder as comparison  # noqa: F401
from test_report_browser import CHROMIUM, folder  # noqa: F401

from weft_rl.report.run_page import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
FOCUS = "document.activeElement.dataset.name ?? document.activeElement.type"


@pytest.fixture
def show(tmp_path):
    """Opens a folder's report, for a `with`."""
    return lambda run: browsing(CHROMIUM, write_report(run), tmp_path / "browser")


def test_a_response_is_one_stop_and_arrows_move_in_it(show, folder):  # noqa: F811
    with show(folder) as page:
        page.js("document.querySelector('[data-live=heat] input').focus()")
        page.key("Tab")
        assert page.js(FOCUS) == "a"
        page.key("ArrowRight")
        told = "document.querySelector('.told').textContent"
        assert "entropy 1.000 nats, beta 1.000" in page.js(told)
        page.key("ArrowRight")  # the last one stays
        page.key("Home")
        assert page.js(told).startswith("a: entropy 4.000")
        page.key("End")
        page.key("Home")
        page.key("Tab")  # past the tokens behind it
        assert page.js("document.activeElement.textContent") == "play"
        page.key("Enter", "\r")
        page.wait(
            "document.querySelector('[data-live=playback] output').textContent === 'step 2 of 2'"
        )
        page.wait("document.querySelector('[data-live=playback] button').textContent === 'play'")
        assert page.errors == []


def test_fields_tell_the_range_and_a_drag_shows_it(show, folder):  # noqa: F811
    with show(folder) as page:
        fields = "[...document.querySelectorAll('input[type=number]')].map(field => field.value)"
        page.js("document.querySelector('input[type=number]').select()")
        for digit in "500":
            page.key(digit, digit)
        page.key("Tab")
        assert page.js(fields) == ["1", "20"]
        left, top, width = page.js(
            "(() => { const chart = document.querySelector('[data-live=chart] > svg');"
            "chart.scrollIntoView(); const at = chart.getBoundingClientRect();"
            "return [at.left, at.top + 50, at.width]; })()"
        )
        page.mouse("mousePressed", left + width / 2, top)
        page.mouse("mouseMoved", left + 0.8 * width, top)
        share = page.js("document.querySelector('.chosen').getBoundingClientRect().width") / width
        assert share == pytest.approx(0.3, abs=0.01)
        page.mouse("mouseReleased", left + 0.8 * width, top)
        # step = 1 + 19 (720 share - 52) / 656: 9.92 at .5 of the width, 16.18 at .8
        assert page.js(fields) == ["10", "16"]
        page.mouse("mousePressed", left + width / 2, top)
        page.mouse("mouseReleased", left + width / 2, top)
        assert page.js(fields) == ["10", "16"]  # a click is no zoom
        assert page.js("document.querySelectorAll('.chosen').length") == 0
        assert page.errors == []


def test_arms_and_bands_of_a_comparison_in_the_dark(show, comparison):  # noqa: F811
    for name, scale in (("sft-seed0", 0.1), ("sft-seed1", 0.3), ("weft-seed1", 0.4)):
        (comparison / name).mkdir()
        rows = [{"stage": "rl", "step": step, "reward": scale * step} for step in (1, 2, 3)]
        write_lines(comparison / name / "metrics.jsonl", rows)
    with show(comparison) as page:
        drawn = "['path.bold', 'path[fill-opacity]'].map(of => document.querySelectorAll("
        drawn += "`[data-live=chart] > svg ${of}`).length)"
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
