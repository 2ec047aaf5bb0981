"""The page as a browser shows it: every figure is drawn, no script fails, and the picture is not blank."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from llmsim.reports.run_report import write_report
from tests.reports.plots.runs import made
from tests.reports.png import pixels

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000")
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"
ON_ERROR = "<script>window.onerror = m => document.documentElement.setAttribute('data-failed', m);</script>"
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser"):
        if found := shutil.which(name):
            return found
    pytest.skip("no chromium or chromium-browser on the PATH: the page cannot be looked at")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two runs that notes any error of its scripts in an attribute."""
    path = write_report([made(0, "one"), made(1, "two")], tmp_path_factory.mktemp("report") / "report.html")
    text = path.read_text()
    path.write_text(text.replace("<head>", f"<head>{ON_ERROR}", 1))
    return path


def browse(chromium: str, page: Path, *flags: str) -> str:
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [chromium, *FLAGS, OFFLINE, profile, *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_every_figure_is_drawn_and_no_script_fails(chromium: str, page: Path) -> None:
    dom = browse(chromium, page, "--dump-dom")
    body = dom[dom.index("<body>") :]
    assert "data-failed" not in dom[: dom.index(">", dom.index("<html"))]
    figures = re.split(r'<div id="figure-\d+"', body)[1:]
    assert len(figures) == 4
    for figure in figures:
        assert "main-svg" in figure
    distributions, first, second, attainment = figures
    assert distributions.count('class="js-line"') == 8 + 2  # the curves, and the legend's
    assert first.count('class="js-line"') == second.count('class="js-line"') == 15
    assert attainment.count('class="point"') >= 4
    assert "arrival to last token" in distributions
    assert "log time" in distributions


def test_the_picture_shows_both_runs_colours_in_their_curves(chromium: str, page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    browse(chromium, page, "--window-size=1250,3400", f"--screenshot={picture}")
    image = pixels(picture)[:, :, :3].astype(int)
    assert image.shape[:2] == (3400, 1250)
    assert 0.02 < np.any(image < 250, axis=2).mean() < 0.5
    for colour in (BLUE, ORANGE):
        at = np.abs(image - colour).max(axis=2) < 12
        assert at.sum() > 3000  # far more than the swatches of the tables, some 100 pixels each
