"""The figures of a report, drawn from the frames of data.py: distributions, timelines, attainment."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from llmsim.reports.plots.data import EVERYONE
from llmsim.reports.plots.style import NEUTRAL, Style, dress, log_ticks, plain, styles
from llmsim.runs.cluster_text import SECONDS_FROM_MS

METRICS = {
    "ttft": "TTFT<br>time to first token",
    "tpot": "TPOT<br>per token after the first",
    "itl": "ITL<br>gaps between tokens",
    "e2el": "E2EL<br>arrival to last token",
}
"""Headings of two lines: two panels must fit a page of 500 pixels beside each other."""
PLACES = dict(zip(METRICS, ((1, 1), (1, 2), (2, 1), (2, 2)), strict=True))
LEGEND_ROW = 30
"""Height of a line of the legend, pixels."""


def cdf_figure(
    frame: pd.DataFrame,
    limits_ms: Mapping[str, float] | None = None,
    *,
    title: str = "Latency distributions",
    looks: Mapping[str, Style] | None = None,
) -> go.Figure:
    """All runs over one another, a panel a metric; buttons switch between a logarithmic and a linear time axis.

    `frame` as from latency_cdfs. `limits_ms` (metric to limit) are drawn as dashed lines. Latencies are in ms,
    or in s in a panel where a run's p99 reaches 10 s, as in the tables of llmsim.runs.text.
    """
    looks = looks or styles(frame["run"])
    made = make_subplots(2, 2, subplot_titles=list(METRICS.values()), vertical_spacing=0.22, horizontal_spacing=0.12)
    head = 70 + LEGEND_ROW * len(looks)
    dress(made, title, 620 + head)
    for metric, (row, column) in PLACES.items():
        _cdf_panel(made, frame[frame["metric"] == metric], looks, row, column, (limits_ms or {}).get(metric))
    made.update_yaxes(range=[0, 1.005], tickformat=".0%")
    made.update_layout(
        legend={"orientation": "v", "y": 1, "yref": "container", "yanchor": "top", "x": 0},
        margin={"t": head + 20},
        updatemenus=[_axis_buttons()],
    )
    made.update_layout(legend_y=1 - 44 / (620 + head))
    made.update_annotations(font_size=13)
    return made


def _cdf_panel(
    made: go.Figure, frame: pd.DataFrame, looks: Mapping[str, Style], row: int, column: int, limit_ms: float | None
) -> None:
    p99_ms = frame.loc[frame["share"] >= 0.99].groupby("run")["latency_ms"].min()
    slow = bool((p99_ms >= SECONDS_FROM_MS).any())
    unit, scale = ("s", 1e-3) if slow else ("ms", 1.0)
    widths = np.linspace(2 + min(len(looks) - 1, 4) * 0.4, 2, len(looks))  # so that no curve hides an equal one
    for (name, look), width in zip(looks.items(), widths, strict=True):
        part = frame[frame["run"] == name]
        made.add_trace(
            go.Scatter(
                x=part["latency_ms"] * scale,
                y=part["share"],
                name=plain(name),
                legendgroup=name,
                showlegend=(row, column) == (1, 1),
                mode="lines",
                line={"color": look.color, "dash": look.dash, "width": width, "shape": "hv"},
                hovertemplate=f"%{{x:.4g}} {unit}: %{{y:.2%}}",
            ),
            row,
            column,
        )
    made.update_xaxes(title_text=f"time ({unit})", type="log", row=row, col=column)
    made.update_xaxes(log_ticks(frame["latency_ms"].to_numpy() * scale), row=row, col=column)
    of = "gaps" if frame["metric"].eq("itl").any() else "requests"
    if column == 1:
        made.update_yaxes(title_text=f"share of {of}", row=row, col=column)
    if limit_ms is not None:
        made.add_vline(x=limit_ms * scale, row=row, col=column, line={"color": NEUTRAL, "dash": "dash", "width": 1.5})


def _axis_buttons() -> dict[str, object]:
    """Logarithmic or linear time in all panels at once."""
    axes = ("xaxis", "xaxis2", "xaxis3", "xaxis4")
    buttons = []
    for label, kind, ticks in (("log time", "log", "array"), ("linear time", "linear", "auto")):
        change: dict[str, object] = {f"{axis}.type": kind for axis in axes}
        change |= {f"{axis}.autorange": True for axis in axes}
        change |= {f"{axis}.tickmode": ticks for axis in axes}
        buttons.append({"label": label, "method": "relayout", "args": [change]})
    return {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        "x": 1,
        "xanchor": "right",
        "y": 1.02,
        "yanchor": "bottom",
        "pad": {"b": 26, "t": 0},
        "showactive": True,
        "bgcolor": "white",
        "font": {"size": 12},
    }


ROWS = {
    "waiting": ("Requests left queued", "requests"),
    "running": ("Requests running (holding KV)", "requests"),
    "prefill_tokens": ("Prefill tokens in the running batches", "tokens"),
    "decode_tokens": ("Decode tokens in the running batches", "tokens"),
    "kv": ("KV blocks in use", "blocks"),
}
"""Quantities of a timeline from the top down: heading and unit."""


def timeline_figure(
    frame: pd.DataFrame,
    *,
    title: str = "Timeline",
    look: Style | None = None,
    kv_is_share: bool = True,
    span_s: tuple[float, float] | None = None,
    tops: Mapping[str, float] | None = None,
) -> go.Figure:
    """Queue, running requests, batch composition and KV use of one run over the simulation's clock.

    `frame` as from `timeline`: the line is the mean of each bin, the shade reaches from its lowest to its highest
    value. `span_s` and `tops` (quantity to the upper end of its axis) put several runs on the same axes.
    """
    look = look or styles([""])[""]
    headings = [heading for heading, _ in ROWS.values()]
    made = make_subplots(len(ROWS), 1, shared_xaxes=True, subplot_titles=headings, vertical_spacing=0.05)
    dress(made, title, 860)
    for row, (quantity, (_, unit)) in enumerate(ROWS.items(), 1):
        _steps(made, frame[frame["quantity"] == quantity], row, look)
        made.update_yaxes(title_text=unit, rangemode="tozero", row=row, col=1)
        if top := (tops or {}).get(quantity):
            made.update_yaxes(range=[0, top * 1.05], row=row, col=1)
    if kv_is_share:
        made.update_yaxes(title_text="share of blocks", range=[0, 1.03], tickformat=".0%", row=len(ROWS), col=1)
    made.update_xaxes(title_text="time (s)", row=len(ROWS), col=1)
    if span_s is not None:
        made.update_xaxes(range=list(span_s))
    made.update_layout(margin={"t": 75}, showlegend=False, hovermode="x")
    return made


def _steps(made: go.Figure, part: pd.DataFrame, row: int, look: Style) -> None:
    """One quantity as steps: a shade from low to high, the mean above it."""
    if part.empty:
        return
    x = np.append(part["start_s"], part["end_s"].iloc[-1])  # steps need the end of the last bin
    low, mean, high = (np.append(part[side], part[side].iloc[-1]) for side in ("low", "mean", "high"))
    hidden = {"mode": "lines", "line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip"}
    made.add_trace(go.Scatter(x=x, y=low, **hidden), row, 1)
    made.add_trace(go.Scatter(x=x, y=high, fill="tonexty", fillcolor=look.faint(), **hidden), row, 1)
    line = {"color": look.color, "width": 1.5, "shape": "hv"}
    hover = "%{y:.4g} at %{x:.4g} s<extra></extra>"
    made.add_trace(go.Scatter(x=x, y=mean, mode="lines", line=line, hovertemplate=hover), row, 1)


def attainment_figure(
    frame: pd.DataFrame, *, title: str = "Service levels", looks: Mapping[str, Style] | None = None
) -> go.Figure:
    """Attainment and goodput, a group of bars for all requests and for each class, a colour a run.

    `frame` as from `attainment`.
    """
    looks = looks or styles(frame["run"])
    runs = list(dict.fromkeys(frame["run"]))
    made = make_subplots(
        1,
        2,
        subplot_titles=("Met every limit<br>share of the requests sent", "Goodput<br>such requests per second"),
        horizontal_spacing=0.14,
    )
    height = 420 + LEGEND_ROW * len(runs)
    dress(made, title, height)
    for column, key, form in ((1, "attainment", ".0%"), (2, "goodput", ".3g")):
        for name in runs:
            part = frame[frame["run"] == name]
            known = part[part[key].notna()]
            bar = go.Bar(
                x=known["slo_class"].map(plain),
                y=known[key].astype(float),
                name=plain(name),
                legendgroup=name,
                showlegend=column == 1,
                marker_color=looks[name].color,
                texttemplate=f"%{{y:{form}}}",
                textposition="outside",
                cliponaxis=False,
            )
            made.add_trace(bar, 1, column)
    top = float(pd.to_numeric(frame["goodput"]).max())
    made.update_yaxes(tickformat=".0%", range=[0, 1.08], row=1, col=1)
    made.update_yaxes(range=[0, top * 1.12] if math.isfinite(top) and top else None, row=1, col=2)
    order = [EVERYONE, *sorted(set(frame["slo_class"]) - {EVERYONE})]
    made.update_xaxes(type="category", categoryorder="array", categoryarray=[plain(name) for name in order])
    made.update_layout(barmode="group", margin={"t": 90 + LEGEND_ROW * len(runs)})
    made.update_annotations(font_size=13)
    made.update_layout(legend={"orientation": "v", "y": 1 - 44 / height, "yref": "container", "yanchor": "top"})
    return made
