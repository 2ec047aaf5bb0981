"""Figures for any frame: curves by group with confidence bands, and bars, with horizontal target lines."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from llmsim.errors import ConfigError, nearest
from llmsim.reports.plots.style import NEUTRAL, Style, figure, log_ticks, plain, styles


def lines_with_band(
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    low: str | None = None,
    high: str | None = None,
    *,
    title: str = "",
    x_title: str = "",
    y_title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    hlines: Mapping[str, float] | None = None,
    looks: Mapping[str, Style] | None = None,
) -> go.Figure:
    """One curve for each value of column `by`, ordered by `x`; a band from column `low` to column `high`.

    Titles of the axes state quantity and unit (default: the column's name). `hlines` are labelled targets,
    label to value. `looks` keeps a group's colour the same over several figures (default: styles of the groups).
    Points without x or y are left out, as are parts of a band without low or high.
    Raises ConfigError for a column that the frame does not have, or a band with one side only.
    """
    if (low is None) != (high is None):
        raise ConfigError(f"a band needs both sides but got low={low!r} and high={high!r}: give both, or neither")
    _check(frame, x, y, by, *filter(None, (low, high)))
    looks = looks or styles(frame[by].astype(str))
    made = figure(title, 460)
    groups = [(str(name), part.sort_values(x)) for name, part in frame.groupby(by, sort=False)]
    if low is not None and high is not None:
        floor = _floor(frame, [y, low, high]) if log_y else -np.inf
        for name, part in groups:
            made.add_trace(_band(part, x, low, high, floor, name, looks[name]))
    for name, part in groups:
        made.add_trace(_line(part, x, y, name, looks[name]))
    _axes(made, x_title or x, y_title or y, log_x, log_y)
    if log_x:
        made.update_xaxes(log_ticks(frame[x].to_numpy(dtype=np.float64)))
    if log_y:
        made.update_yaxes(log_ticks(frame[[*filter(None, (y, low, high))]].to_numpy(dtype=np.float64).ravel()))
    _targets(made, hlines)
    return made


def bars(
    frame: pd.DataFrame,
    x: str,
    y: str,
    by: str | None = None,
    low: str | None = None,
    high: str | None = None,
    *,
    title: str = "",
    x_title: str = "",
    y_title: str = "",
    text_format: str = ".3g",
    hlines: Mapping[str, float] | None = None,
    looks: Mapping[str, Style] | None = None,
) -> go.Figure:
    """A bar for each row at category `x`, side by side for the values of column `by`; whiskers from low to high.

    Each bar carries its number in `text_format` (empty: none). Titles, targets, looks and errors as in
    `lines_with_band`.
    """
    if (low is None) != (high is None):
        raise ConfigError(f"whiskers need both sides but got low={low!r} and high={high!r}: give both, or neither")
    _check(frame, x, y, *filter(None, (by, low, high)))
    groups = [("", frame)] if by is None else [(str(name), part) for name, part in frame.groupby(by, sort=False)]
    looks = looks or styles(name for name, _ in groups)
    made = figure(title, 420)
    for name, part in groups:
        whiskers = None
        if low is not None and high is not None:
            whiskers = {"array": part[high] - part[y], "arrayminus": part[y] - part[low], "symmetric": False}
        made.add_trace(
            go.Bar(
                x=[plain(f"{at:g}" if isinstance(at, float) else at) for at in part[x]],
                y=part[y],
                name=plain(name),
                error_y=whiskers,
                marker_color=looks[name].color,
                text=[f"{value:{text_format}}" for value in part[y]] if text_format else None,
                textposition="outside" if whiskers is None else "inside",
                insidetextanchor="start",  # at the foot of the bar, away from the whiskers
                cliponaxis=False,
            )
        )
    made.update_layout(barmode="group", showlegend=by is not None)
    _axes(made, x_title or x, y_title or y, False, False)
    made.update_xaxes(type="category")
    _targets(made, hlines)
    return made


def _check(frame: pd.DataFrame, *columns: str) -> None:
    for column in columns:
        if column not in frame.columns:
            hint = nearest(column, map(str, frame.columns))
            raise ConfigError(f"the frame to draw has no column {column!r}.{hint}")


def _floor(frame: pd.DataFrame, columns: list[str]) -> float:
    """What a band may not go below on a logarithmic axis: a tenth of the lowest positive number."""
    values = frame[columns].to_numpy(dtype=np.float64)
    positive = values[values > 0]
    return float(positive.min()) / 10 if positive.size else 0.0


def _line(part: pd.DataFrame, x: str, y: str, name: str, look: Style) -> go.Scatter:
    shown = part.dropna(subset=[x, y])
    return go.Scatter(
        x=shown[x],
        y=shown[y],
        name=plain(name),
        legendgroup=name,
        mode="lines+markers",
        line={"color": look.color, "dash": look.dash, "width": 2},
        marker={"size": 6},
    )


def _band(part: pd.DataFrame, x: str, low: str, high: str, floor: float, name: str, look: Style) -> go.Scatter:
    """A closed outline: along the lower side, back along the upper one."""
    known = part.dropna(subset=[x, low, high])
    below = known[low].clip(lower=floor)
    return go.Scatter(
        x=np.concatenate([known[x], known[x][::-1]]),
        y=np.concatenate([below, known[high][::-1]]),
        fill="toself",
        fillcolor=look.faint(),
        line={"width": 0},
        mode="lines",
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )


def _axes(made: go.Figure, x_title: str, y_title: str, log_x: bool, log_y: bool) -> None:
    made.update_xaxes(title_text=plain(x_title), type="log" if log_x else None)
    made.update_yaxes(title_text=plain(y_title), type="log" if log_y else None, rangemode="tozero")


def _targets(made: go.Figure, hlines: Mapping[str, float] | None) -> None:
    """Dashed grey lines with their names on them, at the right end above the line."""
    log = made.layout.yaxis.type == "log"
    for label, value in (hlines or {}).items():
        made.add_hline(y=value, line={"color": NEUTRAL, "dash": "dash", "width": 1.5})
        made.add_annotation(
            text=plain(label),
            x=1,
            xref="paper",
            xanchor="right",
            y=math.log10(value) if log else value,  # on a logarithmic axis annotations, unlike lines, take the exponent
            yanchor="bottom",
            showarrow=False,
            font={"color": NEUTRAL, "size": 12},
        )
