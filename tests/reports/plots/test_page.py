"""A page works offline, holds plotly.js exactly once if it has a figure, and shows words as they are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from llmsim.errors import ConfigError
from llmsim.reports.plots import bars, html_table, write_page
from llmsim.reports.plots.page import Best, frame_table
from tests.runs.test_results import Balanced

FRAME = pd.DataFrame({"policy": ["</script><b>x</b>", "y"], "n": [12345, 2], "ms": [1.2345, float("nan")]})
PLOTLY_JS = "plotly.js v"
"""How plotly.js begins; nothing else on a page says so."""


def test_plotly_is_inside_once_and_nothing_is_fetched(tmp_path: Path) -> None:
    figures = [bars(FRAME, "policy", "n"), bars(FRAME, "policy", "ms")]
    page = write_page(tmp_path / "new" / "page.html", "a <title>", ["<h2>x</h2>", FRAME, *figures]).read_text()
    assert page.count(PLOTLY_JS) == 1
    assert "a &lt;title&gt;" in page
    assert page.count('class="plotly-graph-div"') == 2
    for fetching in ("<script src", "<link", "<img", "@import", "<iframe"):
        assert fetching not in page[:3000] + page[-9000:]
    assert page.count("<script") - page.count('"<script') >= 3  # plotly.js, and one a figure


def test_a_page_without_figures_is_small_and_balanced(tmp_path: Path) -> None:
    page = write_page(tmp_path / "page.html", "t", ["<p>words</p>", FRAME]).read_text()
    assert PLOTLY_JS not in page
    parser = Balanced()
    parser.feed(page[page.index("<body>") : page.index("</html>")])
    assert not parser.open
    assert "</script><b>x</b>" in parser.text


def test_a_label_cannot_break_out_of_the_script_of_a_figure(tmp_path: Path) -> None:
    page = write_page(tmp_path / "page.html", "t", [bars(FRAME, "policy", "n", "policy")]).read_text()
    assert "</script><b>" not in page


def test_the_same_sections_give_the_same_bytes_and_replace_an_earlier_page(tmp_path: Path) -> None:
    pages = [write_page(tmp_path / "page.html", "t", [bars(FRAME, "policy", "n")]).read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]
    with pytest.raises(ConfigError, match="this is a directory"):
        write_page(tmp_path, "t", [])


def test_a_frame_keeps_whole_numbers_rounds_fractions_and_escapes_words() -> None:
    table = frame_table(FRAME)
    for cell in ("12,345", "<td>1.23</td>", "<td>-</td>", "&lt;/script&gt;&lt;b&gt;x"):
        assert cell in table
    assert "<th>seed</th>" in frame_table(FRAME.rename_axis("seed"))


def test_the_best_cell_is_marked_and_groups_span_their_columns() -> None:
    table = html_table(["run", "p50", "p99"], [["a", Best("1"), "2*"]], groups=[("", 1), ("TTFT", 2)])
    assert '<td class="best first">1</td><td>2*</td>' in table
    assert '<th colspan="2">TTFT</th>' in table
