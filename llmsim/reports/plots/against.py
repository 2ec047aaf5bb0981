"""Figures of a measured run against its simulation: errors over time, requests in the system, decode iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from llmsim.metrics.timeline import ints
from llmsim.reports.plots.style import NEUTRAL, PALETTE, dress, figure, styles

if TYPE_CHECKING:
    from llmsim.runs.results import Result

LATENCIES = ("ttft", "tpot", "e2el")
SIDES = ("live", "simulated")
QUANTITIES = {"waiting": "requests without a token", "decoding": "requests decoding"}
POINTS = 3000
"""A scatter of more points shows no more."""
BINS = 400
MARKER = {"size": 5, "opacity": 0.5}


def error_points(live: Result, simulated: Result, most: int = POINTS) -> pd.DataFrame:
    """Columns metric, request_id, arrival_s, error_pct of requests with the latency in both runs; evenly thinned."""
    parts = []
    for metric in LATENCIES:
        column = f"{metric}_s"
        known = live.requests[["id", "request_id", "arrival_ns", column]]
        both = known.merge(simulated.requests[["id", column]], on="id")
        measured, ours = both[f"{column}_x"], both[f"{column}_y"]
        keep = (measured > 0) & ours.notna()
        values = {"arrival_s": both["arrival_ns"] / 1e9, "error_pct": 100 * (ours / measured - 1)}
        part = pd.DataFrame({"metric": metric, "request_id": both["request_id"], **values})[keep]
        parts.append(part.iloc[:: max(1, len(part) // most)])
    return pd.concat(parts, ignore_index=True)


def busy_over_time(result: Result, bins: int = BINS) -> pd.DataFrame:
    """Columns at_s (clock of the run), waiting (arrived, no token yet), decoding, at `bins` times evenly apart."""
    table = result.requests
    arrival, first, last = (np.sort(ints(table, name)) for name in ("arrival_ns", "first_token_ns", "finish_ns"))
    at = np.linspace(arrival[0], last[-1], bins).astype(np.int64)
    came, spoke, ended = (np.searchsorted(times, at, side="right") for times in (arrival, first, last))
    return pd.DataFrame({"at_s": at / 1e9, "waiting": came - spoke, "decoding": spoke - ended})


def pace_points(windows: pd.DataFrame, most: int = POINTS) -> pd.DataFrame:
    """Columns decodes, start_s, measured_ms, modelled_ms of an iteration of each window (Pace.windows); thinned."""
    rows = windows.iloc[:: max(1, len(windows) // most)]
    times = {name: 1e3 * rows[f"{side}_s"] / rows["iterations"] for name, side in
             (("measured_ms", "window"), ("modelled_ms", "modelled"))}  # fmt: skip
    return pd.DataFrame({"decodes": rows["decodes"], "start_s": rows["start_s"], **times}).reset_index(drop=True)


def error_figure(points: pd.DataFrame) -> go.Figure:
    """Each request's error in percent over its time of arrival, a panel a metric; on the line is right."""
    made = make_subplots(1, len(LATENCIES), subplot_titles=[metric.upper() for metric in LATENCIES])
    dress(made, "Errors over the time of arrival", 400)
    for column, metric in enumerate(LATENCIES, 1):
        part = points[points["metric"] == metric]
        trace = go.Scattergl(x=part["arrival_s"], y=part["error_pct"], mode="markers", text=part["request_id"])
        hover = "request %{text}<br>at %{x:.3f} s, %{y:+.1f} %<extra></extra>"
        trace.update(marker=MARKER | {"color": PALETTE[0]}, hovertemplate=hover, showlegend=False)
        made.add_trace(trace, row=1, col=column)
        made.add_hline(y=0, line={"color": NEUTRAL, "width": 1}, row=1, col=column)
        made.update_xaxes(title_text="arrival (s)", row=1, col=column)
    made.update_yaxes(title_text="simulated / live - 1 (%)", row=1, col=1)
    return made


def busy_figure(live: pd.DataFrame, simulated: pd.DataFrame) -> go.Figure:
    """Requests waiting for their first token and requests decoding, over time, in both runs (busy_over_time)."""
    looks = styles(SIDES)
    made = make_subplots(len(QUANTITIES), 1, shared_xaxes=True, vertical_spacing=0.08)
    dress(made, "Requests in the system", 460)
    for side, table in zip(SIDES, (live, simulated), strict=True):
        for row, (quantity, words) in enumerate(QUANTITIES.items(), 1):
            line = {"color": looks[side].color, "width": 1.5, "shape": "hv"}
            trace = go.Scatter(x=table["at_s"], y=table[quantity], mode="lines", line=line, name=side)
            made.add_trace(trace.update(legendgroup=side, showlegend=row == 1), row=row, col=1)
            made.update_yaxes(title_text=words, rangemode="tozero", row=row, col=1)
    made.update_xaxes(title_text="clock of the run (s)", row=len(QUANTITIES), col=1)
    return made


def pace_figure(points: pd.DataFrame) -> go.Figure:
    """Milliseconds of pure decode iterations over the number of decodes, measured and modelled."""
    looks = styles(("measured", "modelled"))
    made = figure("Iterations that only decode", 460)
    for name, look in looks.items():
        trace = go.Scattergl(x=points["decodes"], y=points[f"{name}_ms"], mode="markers", name=name)
        made.add_trace(trace.update(marker=MARKER | {"color": look.color}))
    made.update_xaxes(title_text="decodes in the batch")
    made.update_yaxes(title_text="ms an iteration", rangemode="tozero")
    return made
