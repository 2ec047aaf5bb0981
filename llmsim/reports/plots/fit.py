"""Figures of a fit: predicted against measured, residuals by regime, rates against ceilings, scatter of repeats.

The data functions take the `predictions` of `calibrate.fitting.fit_result.BatchTimeFit`, a row a case; no other part of
the profile is needed to draw them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from llmsim.reports.plots.style import NEUTRAL, dress, figure, log_ticks, plain, styles

if TYPE_CHECKING:
    from llmsim.calibrate.fitting.roofline import Roofline

REGIMES = ("prefill", "decode", "mixed")
AGAINST = {
    "tokens": "tokens",
    "sequences": "sequences",
    "context": "keys read (contexts, pasts and chunks)",
}
"""What residuals are drawn against, and how its axis is called."""

MARKER = {"size": 6, "opacity": 0.75}


def fit_points(predictions: pd.DataFrame) -> pd.DataFrame:
    """Columns case, regime, outlier, measured_ms, predicted_ms and held_out_ms, error_pct (signed, held out)."""
    return pd.DataFrame(
        {
            "case": predictions["case"].str.slice(0, 80),
            "regime": predictions["regime"],
            "outlier": predictions["outlier"],
            "measured_ms": 1e3 * predictions["measured_s"],
            "predicted_ms": 1e3 * predictions["predicted_s"],
            "held_out_ms": 1e3 * predictions["held_out_predicted_s"],
            "error_pct": 100 * predictions["held_out_relative_error"],
        }
    )


def residuals(predictions: pd.DataFrame) -> pd.DataFrame:
    """A row a case and axis of AGAINST: columns case, regime, outlier, against, value, error_pct (held out)."""
    context = predictions["decode_context"] + predictions["prefill_context"] + predictions["prefill_tokens"]
    values = {"tokens": predictions["tokens"], "sequences": predictions["sequences"], "context": context}
    points = fit_points(predictions)[["case", "regime", "outlier", "error_pct"]]
    parts = [points.assign(against=name, value=values[name]) for name in AGAINST]
    return pd.concat(parts, ignore_index=True)


def regime_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Held-out errors of each regime and of all, in percent: regime, cases, mape, bias (median, signed), p95, max."""
    rows = []
    groups = [(name, predictions[predictions["regime"] == name]) for name in REGIMES]
    for name, part in [*groups, ("all", predictions)]:
        if part.empty:
            continue
        error = 100 * part["held_out_relative_error"].to_numpy(dtype=np.float64)
        size = np.abs(error)
        rows.append((name, len(part), size.mean(), np.median(error), np.percentile(size, 95), size.max()))
    return pd.DataFrame(rows, columns=["regime", "cases", "MAPE %", "median error %", "p95 %", "max %"])


def prediction_figure(points: pd.DataFrame, *, title: str = "Predicted against measured") -> go.Figure:
    """Held-out predictions over measured times on logarithmic axes; `points` as from fit_points. On the line is right.

    Cases left out of the fit are crosses.
    """
    made = figure(title, 520)
    times = points[["measured_ms", "held_out_ms"]].to_numpy(dtype=np.float64)
    ends = [float(times[times > 0].min()) * 0.9, float(times.max()) * 1.1]
    line = {"color": NEUTRAL, "width": 1}
    made.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=line, name="as measured", hoverinfo="skip"))
    hover = "%{text}<br>measured %{x:.4g} ms, predicted %{y:.4g} ms<extra></extra>"
    _by_regime(made, points, "measured_ms", "held_out_ms", hover)
    made.update_xaxes(title_text="measured (ms)", type="log", **log_ticks(times[:, 0]))
    made.update_yaxes(title_text="predicted, held out (ms)", type="log", **log_ticks(times[:, 1]))
    return made


def residual_figure(frame: pd.DataFrame, *, title: str = "Held-out errors by size of the batch") -> go.Figure:
    """Relative errors over tokens, sequences and keys, a panel each; `frame` as from residuals.

    The axis holds every case that was kept in the fit; a stray beyond it, which would flatten the rest, is not seen.
    """
    made = make_subplots(1, len(AGAINST), shared_yaxes=True, horizontal_spacing=0.04)
    dress(made, title, 440)
    for column, (name, words) in enumerate(AGAINST.items(), 1):
        part = frame[frame["against"] == name]
        hover = f"%{{text}}<br>%{{x:,}} {name}: %{{y:+.2f}} %<extra></extra>"
        _by_regime(made, part, "value", "error_pct", hover, column)
        made.update_xaxes(title_text=words, type="log", dtick=1, exponentformat="SI", row=1, col=column)
        made.add_hline(y=0, row=1, col=column, line={"color": NEUTRAL, "width": 1})
    far = max(float(frame.loc[~frame["outlier"], "error_pct"].abs().max()) * 1.2, 1.0)
    made.update_yaxes(range=[-far, far])
    made.update_yaxes(title_text="predicted / measured - 1 (%)", row=1, col=1)
    return made


def roofline_figure(roofline: Roofline, *, title: str = "Achieved rates against the device's ceilings") -> go.Figure:
    """Operations a second over operations a byte, both logarithmic, under the ceilings where they are known."""
    rates = roofline.rates
    made = figure(title, 480)
    x = rates["intensity"].to_numpy(dtype=np.float64)
    looks = styles(["batches", "ceiling"])
    made.add_trace(
        go.Scatter(
            x=x,
            y=rates["flops_per_s"],
            mode="markers",
            marker=MARKER | {"color": looks["batches"].color},
            name="batches",
            text=[plain(str(case)[:80]) for case in rates["case"]],
            hovertemplate="%{text}<br>%{y:.3s}FLOP/s at %{x:.3g} FLOP/B<extra></extra>",
        )
    )
    if roofline.ceilings is not None:
        most, moved = roofline.ceilings.flops, roofline.ceilings.bytes_per_s
        at = np.sort(np.append(np.geomspace(x.min() / 1.5, max(x.max() * 1.5, 2 * most / moved), 60), most / moved))
        line = {"color": looks["ceiling"].color, "width": 2}
        made.add_trace(go.Scatter(x=at, y=np.minimum(most, moved * at), mode="lines", line=line, name="ceiling"))
    made.update_xaxes(title_text="operations a byte (FLOP/B)", type="log", **log_ticks(x))
    made.update_yaxes(title_text="FLOP/s", type="log", exponentformat="SI")
    return made


def spread_figure(predictions: pd.DataFrame, *, title: str = "Scatter of the repeats") -> go.Figure:
    """Distance of the quartiles of a case's repeats over its time; cases timed once are not shown."""
    known = predictions[predictions["spread_pct"].notna()]
    points = known[["case", "regime", "outlier", "spread_pct"]].assign(measured_ms=1e3 * known["measured_s"])
    made = figure(title, 380)
    _by_regime(made, points, "measured_ms", "spread_pct", "%{text}<br>%{x:.4g} ms: %{y:.2f} %<extra></extra>")
    made.update_xaxes(title_text="measured (ms)", type="log", **log_ticks(points["measured_ms"].to_numpy()))
    made.update_yaxes(title_text="p75 - p25, % of the median", rangemode="tozero")
    return made


def _by_regime(made: go.Figure, points: pd.DataFrame, x: str, y: str, hover: str, column: int = 0) -> None:
    """A trace a regime in its colour, and the outliers once more as crosses; into `column` of subplots, from 1."""
    looks = styles(REGIMES)
    place = {"row": 1, "col": column} if column else {}
    for name, part, marker in (
        *((name, points[points["regime"] == name], MARKER | {"color": looks[name].color}) for name in REGIMES),
        ("left out of the fit", points[points["outlier"]], {"size": 12, "symbol": "x-thin-open", "color": "black"}),
    ):
        if part.empty:
            continue
        trace = go.Scatter(
            x=part[x],
            y=part[y],
            mode="markers",
            marker=marker,
            name=name,
            legendgroup=name,
            showlegend=column <= 1,
            text=[plain(str(case)[:80]) for case in part["case"]],
            hovertemplate=hover,
        )
        made.add_trace(trace, **place)
