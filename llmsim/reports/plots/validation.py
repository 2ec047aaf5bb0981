"""Figures of live against simulated: requests, iterations, causes, the device's speed, queues over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from llmsim.reports.plots.data import latency_cdfs, timeline
from llmsim.reports.plots.style import NEUTRAL, PALETTE, dress, figure, log_ticks, styles

if TYPE_CHECKING:
    from llmsim.runs.results import Result

LATENCIES = ("ttft", "tpot", "e2el")
REGIMES = ("prefill", "decode", "mixed")
SIDES = ("live", "simulated")
POINTS = 3000
"""A scatter of more points shows no more."""
BINS = 120
CAUSES = {"batch_time_ms": "batch times", "host_overhead_ms": "host overhead", "queue_amplification_ms": "queues"}
MARKER = {"size": 5, "opacity": 0.5}
QUANTITIES = {"running": "requests running", "waiting": "requests waiting", "kv": "KV in use"}


def request_points(live: Result, simulated: Result, most: int = POINTS) -> pd.DataFrame:
    """Columns metric, id, live_ms, simulated_ms of requests that have the latency in both runs; evenly thinned."""
    parts = []
    for metric in LATENCIES:
        column = f"{metric}_s"
        both = live.requests[["id", column]].merge(simulated.requests[["id", column]], on="id").dropna()
        both = both[(both.iloc[:, 1] > 0) & (both.iloc[:, 2] > 0)].iloc[:: max(1, len(both) // most)]
        values = {"live_ms": both.iloc[:, 1] * 1e3, "simulated_ms": both.iloc[:, 2] * 1e3}
        parts.append(pd.DataFrame({"metric": metric, "id": both["id"], **values}))
    return pd.concat(parts, ignore_index=True)


def iteration_points(table: pd.DataFrame, most: int = POINTS) -> pd.DataFrame:
    """Columns regime, measured_ms, modelled_ms of iterations (a table of IterationErrors); evenly thinned."""
    rows = table.iloc[:: max(1, len(table) // most)]
    values = {"measured_ms": rows["forward_s"] * 1e3, "modelled_ms": rows["forward_model_s"] * 1e3}
    return pd.DataFrame({"regime": rows["regime"], **values}).reset_index(drop=True)


def speed_over_time(table: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Columns at_s (clock of the run), ratio: measured over modelled forward time, summed in bins of equal counts."""
    group = np.arange(len(table)) * bins // max(len(table), bins)
    summed = table.groupby(group).agg({"start_ns": "mean", "forward_s": "sum", "forward_model_s": "sum"})
    return pd.DataFrame({"at_s": summed["start_ns"] / 1e9, "ratio": summed["forward_s"] / summed["forward_model_s"]})


def cdf_pair_figure(live: Result, simulated: Result) -> go.Figure:
    """Distributions of TTFT, TPOT and E2EL, live and simulated, a panel each, time logarithmic."""
    looks = styles(SIDES)
    made = make_subplots(1, len(LATENCIES), subplot_titles=[m.upper() for m in LATENCIES], shared_yaxes=True)
    dress(made, "Distributions, live and simulated", 400)
    for side, result in zip(SIDES, (live, simulated), strict=True):
        frame = latency_cdfs([result], 400)
        for column, metric in enumerate(LATENCIES, 1):
            part = frame[frame["metric"] == metric]
            line = {"color": looks[side].color, "width": 2, "shape": "hv"}
            trace = go.Scatter(x=part["latency_ms"], y=part["share"], mode="lines", line=line, name=side)
            made.add_trace(trace.update(legendgroup=side, showlegend=column == 1), row=1, col=column)
            made.update_xaxes(title_text="ms", type="log", row=1, col=column)
    made.update_yaxes(title_text="share of requests", row=1, col=1)
    _legend_below(made)
    return made


def request_figure(points: pd.DataFrame) -> go.Figure:
    """Each request's simulated over its measured latency, a panel a metric; on the line is right."""
    made = make_subplots(1, len(LATENCIES), subplot_titles=[m.upper() for m in LATENCIES])
    dress(made, "Request by request", 420)
    for column, metric in enumerate(LATENCIES, 1):
        part = points[points["metric"] == metric]
        if part.empty:
            continue
        _diagonal(made, part[["live_ms", "simulated_ms"]].to_numpy(), 1, column)
        trace = go.Scattergl(x=part["live_ms"], y=part["simulated_ms"], mode="markers", text=part["id"].astype(str))
        hover = "request %{text}<br>live %{x:.4g} ms, simulated %{y:.4g} ms<extra></extra>"
        trace.update(marker=MARKER | {"color": PALETTE[0]}, hovertemplate=hover, showlegend=False)
        made.add_trace(trace, row=1, col=column)
        made.update_xaxes(title_text="live (ms)", type="log", row=1, col=column)
        made.update_yaxes(type="log", row=1, col=column)
    made.update_yaxes(title_text="simulated (ms)", row=1, col=1)
    return made


def cause_figure(causes: pd.DataFrame) -> go.Figure:
    """What the errors of the means are made of, in percent of the measured mean, stacked; `causes` from decompose."""
    made = figure("Why: causes of the errors of the means", 420)
    names = [f"{row['metric'].upper()}, {row['requests']}" for row in causes.to_dict("records")]
    for (column, words), look in zip(CAUSES.items(), styles(CAUSES).values(), strict=True):
        share = 100 * causes[column] / causes["live_ms"].where(causes["live_ms"] > 0)
        made.add_trace(go.Bar(x=names, y=share, name=words, marker_color=look.color))
    dot = {"color": "black", "size": 9}
    made.add_trace(go.Scatter(x=names, y=causes["error_pct"], mode="markers", name="error", marker=dot))
    made.update_layout(barmode="relative")
    made.update_yaxes(title_text="% of the measured mean")
    return made


def iteration_figure(points: pd.DataFrame) -> go.Figure:
    """Modelled over measured forward times of the live run's own batches, logarithmic; on the line is right."""
    made = figure("Iteration by iteration: forward passes", 520)
    values = points[["measured_ms", "modelled_ms"]].to_numpy()
    _diagonal(made, values)
    for name, look in styles(REGIMES).items():
        part = points[points["regime"] == name]
        if not part.empty:
            marker = MARKER | {"color": look.color}
            trace = go.Scattergl(x=part["measured_ms"], y=part["modelled_ms"], mode="markers", marker=marker, name=name)
            made.add_trace(trace)
    made.update_xaxes(title_text="measured (ms)", type="log", **log_ticks(values[:, 0]))
    made.update_yaxes(title_text="modelled (ms)", type="log", **log_ticks(values[:, 1]))
    return made


def speed_figure(speed: pd.DataFrame, probes: pd.DataFrame | None) -> go.Figure:
    """Measured over modelled time as the run went on; `probes` (at_ns, ratio) are cases of the profile timed again."""
    looks = styles(("batches of the run", "cases of the profile"))
    made = figure("The device's speed during the run", 380)
    if probes is not None and len(probes):
        marker = MARKER | {"color": looks["cases of the profile"].color}
        dots = go.Scatter(x=probes["at_ns"] / 1e9, y=probes["ratio"], mode="markers", marker=marker)
        made.add_trace(dots.update(name="cases of the profile"))
    line = {"color": looks["batches of the run"].color, "width": 2}
    made.add_trace(go.Scatter(x=speed["at_s"], y=speed["ratio"], mode="lines", line=line, name="batches of the run"))
    made.add_hline(y=1, line={"color": NEUTRAL, "width": 1})
    made.update_xaxes(title_text="clock of the run (s)")
    made.update_yaxes(title_text="measured / expected")
    return made


def queue_figure(live: Result, simulated: Result) -> go.Figure:
    """Requests running and waiting, and KV in use, over time, live and simulated."""
    looks = styles(SIDES)
    made = make_subplots(len(QUANTITIES), 1, shared_xaxes=True, vertical_spacing=0.06)
    dress(made, "Queues and KV over time", 560)
    for side, result in zip(SIDES, (live, simulated), strict=True):
        frame = timeline(result, 300)
        for row, (quantity, words) in enumerate(QUANTITIES.items(), 1):
            part = frame[frame["quantity"] == quantity]
            line = {"color": looks[side].color, "width": 1.5, "shape": "hv"}
            trace = go.Scatter(x=part["start_s"], y=part["mean"], mode="lines", line=line, name=side)
            made.add_trace(trace.update(legendgroup=side, showlegend=row == 1), row=row, col=1)
            made.update_yaxes(title_text=words, rangemode="tozero", row=row, col=1)
    made.update_xaxes(title_text="clock of the run (s)", row=len(QUANTITIES), col=1)
    return made


def _legend_below(made: go.Figure) -> None:
    """Panels have titles of their own where the legend would be."""
    made.update_layout(legend={"y": -0.18, "yanchor": "top"})


def _diagonal(made: go.Figure, values: np.ndarray, row: int | None = None, column: int | None = None) -> None:
    """The line on which both axes are equal, over the range of the values."""
    ends = [float(values.min()) * 0.9, float(values.max()) * 1.1]
    line = go.Scatter(x=ends, y=ends, mode="lines", line={"color": NEUTRAL, "width": 1}, hoverinfo="skip")
    made.add_trace(line.update(showlegend=False), row=row, col=column)
