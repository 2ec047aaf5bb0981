"""One look for every figure: a palette that colour-blind readers can tell apart, white ground, readable type."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import NamedTuple

import plotly.graph_objects as go

from llmsim.metrics.quantiles import Floats

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
"""Okabe and Ito's colours without the yellow, which is too pale on white."""

DASHES = ("solid", "dash", "dot", "dashdot")
NEUTRAL = "#7A7A7A"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
GRID = "#E4E4E4"
AXIS = {
    "showline": True,
    "linecolor": "#888888",
    "gridcolor": GRID,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": "#888888",
    "automargin": True,
    "title": {"standoff": 8},
}

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": "#222222"},
        "title": {"x": 0, "xanchor": "left", "xref": "paper", "font": {"size": 16}},
        "colorway": list(PALETTE),
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hovermode": "closest",
        "xaxis": AXIS,
        "yaxis": AXIS,
        "margin": {"l": 70, "r": 25, "t": 60, "b": 60},
    }
)


class Style(NamedTuple):
    """How a group is drawn wherever it appears: a colour, and a dash that differs once the colours run out."""

    color: str
    dash: str

    def faint(self, alpha: float = 0.18) -> str:
        """The colour, see-through, for bands."""
        red, green, blue = (int(self.color[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},{alpha:g})"


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name, in the order of their first appearance."""
    found = {}
    for i, name in enumerate(dict.fromkeys(names)):
        found[name] = Style(PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE) % len(DASHES)])
    return found


def plain(text: object) -> str:
    """Text as it is: plotly reads HTML tags in titles and names, and drops what it does not know."""
    return html.escape(str(text), quote=False)


def log_ticks(values: Floats) -> dict[str, object]:
    """Ticks of a logarithmic axis at 1, 2 and 5 of every decade (1 alone on a long axis), written out in full."""
    positive = values[values > 0]
    if not len(positive):
        return {}
    low, high = (math.floor(math.log10(value)) for value in (positive.min(), positive.max()))
    steps = (1, 2, 5) if high - low < 4 else (1,)
    ticks = [step * 10.0**decade for decade in range(low, high + 1) for step in steps]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{at:g}" for at in ticks]}


def figure(title: str = "", height: int = 420) -> go.Figure:
    """An empty figure in the common look, `height` pixels high."""
    made = go.Figure()
    dress(made, title, height)
    return made


def dress(made: go.Figure, title: str, height: int) -> None:
    """Put the common look on a figure, with a legend between title and plot."""
    made.update_layout(template=TEMPLATE, height=height, title_text=plain(title))
    made.update_layout(title={"y": 1, "yanchor": "top", "yref": "container", "pad": {"t": 14}})
    made.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "xanchor": "left"})
