"""One self-contained HTML page out of text, tables and figures: no network, plotly.js inside exactly once."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from llmsim.errors import ConfigError
from llmsim.runs.contests import number
from llmsim.runs.folders import write_whole

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Best(str):
    """A cell of a table that is shown as the best of its column."""


CSS = """
body { font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; color: #222;
  background: white; max-width: 1160px; margin: 0 auto; padding: 16px 24px 64px; }
h1 { font-size: 26px; margin: 8px 0; }
h2 { font-size: 20px; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid #ccc; }
p { margin: 6px 0; max-width: 120ch; }
.note { color: #555; font-size: 14px; }
.scroll { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { padding: 4px 9px; text-align: right; vertical-align: top; border-bottom: 1px solid #e4e4e4;
  white-space: nowrap; }
thead th { border-bottom: 1px solid #888; font-weight: 600; white-space: normal; vertical-align: bottom; }
thead th.text, thead th:first-child { overflow-wrap: anywhere; }
thead tr.groups th { text-align: center; border-bottom: none; padding-bottom: 0; }
th:first-child, th.text, td.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 9em; }
tbody th { font-weight: 600; white-space: normal; overflow-wrap: break-word; max-width: 22em; }
.run { display: inline-block; padding-left: 18px; text-indent: -18px; }
td.best { font-weight: 700; background: #e7f3ec; }
.first { border-left: 1px solid #ccc; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 7px; }
.verdict { display: inline-block; padding: 0 8px; border-radius: 9px; background: #eee; white-space: nowrap; }
.verdict.stable { background: #d9efe3; }
.verdict.near { background: #fdeccb; }
.verdict.undetermined { background: #e4e4ee; }
.verdict.overloaded { background: #f8d5c6; }
details { margin: 8px 0; }
summary { cursor: pointer; font-weight: 600; }
pre { background: #f6f6f6; padding: 10px 12px; overflow-x: auto; font-size: 13px; line-height: 1.4; }
ul { margin: 4px 0; padding-left: 20px; }
td.text ul { padding-left: 16px; margin: 0; }
.figure { margin: 14px 0; }
.facts { list-style: none; padding: 0; margin: 10px 0; }
.facts b { display: inline-block; min-width: 9.5em; font-weight: 600; }
@media (max-width: 760px) {
  body { padding: 12px 14px 40px; }
  table, tbody, tr, tbody th { display: block; max-width: none; }
  thead { display: none; }
  tr { padding: 6px 0; border-bottom: 1px solid #bbb; }
  th, td { padding: 2px 0; border: none; text-align: left; }
  td, td.text { display: inline-block; margin-right: 14px; min-width: 0; }
  td.text { display: block; }
  td::before { content: var(--head) " "; color: #555; font-weight: 400; }
  td.best { padding: 2px 4px; }
  .first { border-left: none; }
  .facts b { display: block; }
  .modebar { display: none !important; }
}
@media print { .figure { break-inside: avoid; } }
"""


def write_page(path: str | Path, title: str, sections: Sequence[str | pd.DataFrame | go.Figure]) -> Path:
    """Write the page and return its path; folders are made, an earlier page is replaced.

    A section is HTML (taken as it is: escape what comes from outside), a frame (a table; its index is left out
    unless it has a name) or a plotly figure. The same sections give the same bytes.
    Raises ConfigError if `path` is a directory.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path}: a page is written to a file, but this is a directory; name a file in it")
    figures = [section for section in sections if not isinstance(section, str | pd.DataFrame)]
    parts = []
    for section in sections:
        if isinstance(section, str):
            parts.append(section)
        elif isinstance(section, pd.DataFrame):
            parts.append(frame_table(section))
        else:
            parts.append(_figure_html(section, len(parts)))
    script = f"<script>{_plotly_js()}</script>" if figures else ""
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style>{script}</head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    return write_whole(path, page)


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _figure_html(section: go.Figure, place: int) -> str:
    """The figure without plotly.js; its id is its place, as a random one would change the page every time."""
    drawn = section.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"figure-{place}",
        config={"displaylogo": False, "responsive": True},
    )
    return f'<div class="figure">{drawn}</div>'


def html_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    groups: Sequence[tuple[str, int]] = (),
    text: Sequence[int] = (),
) -> str:
    """A table whose first column names the rows. Cells are HTML; those that are `Best` are marked.

    `groups` are headings above the columns, (heading, how many columns); `text` the columns, from 0, that hold
    words and so may wrap. On a narrow page each row is a paragraph, and each cell has its heading before it.
    """
    starts, at = set(), 0
    for _, width in groups:
        starts.add(at)
        at += width

    def classes(column: int, *more: str) -> str:
        found = [*more, *(["first"] if column in starts and column else [])]
        return f' class="{" ".join(found)}"' if found else ""

    def kind(column: int) -> list[str]:
        return ["text"] if column in text else []

    above = "".join(f'<th colspan="{width}">{title}</th>' for title, width in groups)
    lines = [f'<tr class="groups">{above}</tr>'] if groups else []
    lines.append("<tr>" + "".join(f"<th{classes(i, *kind(i))}>{title}</th>" for i, title in enumerate(head)) + "</tr>")
    body = []
    for row in rows:
        cells = [f"<th>{row[0]}</th>"]
        for i, cell in enumerate(row[1:], 1):
            best = ["best"] if isinstance(cell, Best) else []
            cells.append(f"<td{classes(i, *kind(i), *best)}>{cell}</td>")
        body.append("<tr>" + "".join(cells) + "</tr>")
    name, style = _narrow(head, groups)
    table = f"<table class={name!r}><thead>{''.join(lines)}</thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="scroll">{style}{table}</div>'


def _narrow(head: Sequence[str], groups: Sequence[tuple[str, int]]) -> tuple[str, str]:
    """A class for tables with these headings, and the style that lets their cells know them."""
    above = [title for title, width in groups for _ in range(width)] or [""] * len(head)
    titles = [
        html.unescape(re.sub("<[^>]*>", "", f"{over} {title}")).strip() for over, title in zip(above, head, strict=True)
    ]
    name = "t" + hashlib.sha256(repr(titles).encode()).hexdigest()[:8]
    rules = [
        f".{name} td:nth-of-type({at}) {{ --head: {json.dumps(title, ensure_ascii=False)}; }}"
        for at, title in enumerate(titles[1:], 1)
        if title
    ]
    return name, f"<style>{' '.join(rules).replace('<', chr(92) + '3c ')}</style>"


def frame_table(frame: pd.DataFrame) -> str:
    """A frame as a table: words escaped, fractions to about three digits, whole numbers whole, '-' for none."""
    shown = frame.reset_index() if frame.index.name else frame
    words = [i for i, kind in enumerate(shown.dtypes) if not pd.api.types.is_numeric_dtype(kind)]
    rows = [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
    return html_table([html.escape(str(column)) for column in shown.columns], rows, text=words)


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return html.escape(str(value))
    return f"{value:,}" if isinstance(value, int) else number(value)
