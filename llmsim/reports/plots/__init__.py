"""Figures and pages: data functions that need no plotly, functions that draw their frames, and the HTML page.

    from llmsim.reports.plots import lines_with_band, write_page
    write_page("page.html", "Load sweep", [frame, lines_with_band(frame, "rate", "p99_ms", "scheduler")])

The only package that imports plotly. Names load on first use, so the data functions work without loading it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmsim.reports.plots.curves import bars, lines_with_band
    from llmsim.reports.plots.data import attainment, latency_cdfs, timeline
    from llmsim.reports.plots.figures import attainment_figure, cdf_figure, timeline_figure
    from llmsim.reports.plots.page import html_table, write_page
    from llmsim.reports.plots.style import Style, styles
    from llmsim.runs.labels import run_names

_HOME = {
    "Style": "style",
    "attainment": "data",
    "attainment_figure": "figures",
    "bars": "curves",
    "cdf_figure": "figures",
    "html_table": "page",
    "latency_cdfs": "data",
    "lines_with_band": "curves",
    "run_names": "llmsim.runs.labels",
    "styles": "style",
    "timeline": "data",
    "timeline_figure": "figures",
    "write_page": "page",
}

__all__ = [
    "Style",
    "attainment",
    "attainment_figure",
    "bars",
    "cdf_figure",
    "html_table",
    "latency_cdfs",
    "lines_with_band",
    "run_names",
    "styles",
    "timeline",
    "timeline_figure",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'llmsim.reports.plots' has no attribute {name!r}")
    home = _HOME[name]
    return getattr(import_module(home if "." in home else f"llmsim.reports.plots.{home}"), name)


def __dir__() -> list[str]:
    return __all__
