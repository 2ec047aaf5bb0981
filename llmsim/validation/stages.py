"""Where in a request's life, and where in the run, a simulation and a measured run of the same requests part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmsim.metrics.timeline import ints

if TYPE_CHECKING:
    from llmsim.metrics.quantiles import Floats

SLOWEST_PCT = 90
"""Requests at or above this percentile of the measured TTFT are the slowest tenth."""
PHASES = 8
Figures = dict[str, "float | int | None"]
STAGES = ("queueing", "prefill", "decoding")


def stage_errors(live: pd.DataFrame, simulated: pd.DataFrame, *, scheduled: bool) -> pd.DataFrame:
    """Means of the stages of a request in both runs; the errors of the stages add up to that of E2EL.

    Columns requests ("all", "slowest tenth" by measured TTFT), stage, count, live_ms, simulated_ms, error_ms,
    error_pct. Stages are queueing (to the first batch), prefill (to the first token) and decoding (to the last); where
    it is not known when requests were `scheduled`, the first two are one: "to first token". The tables are request
    tables of the same requests in the same order.
    """
    names = STAGES if scheduled else ("to first token", "decoding")
    here, there = (_stages(table, scheduled) for table in (live, simulated))
    ttft = live["ttft_s"].to_numpy(dtype=np.float64)
    groups = {"all": np.full(len(live), True), "slowest tenth": ttft >= np.percentile(ttft, SLOWEST_PCT)}
    return pd.DataFrame(
        [
            {"requests": which, "stage": name, "count": int(rows.sum())} | _errors("", here[at][rows], there[at][rows])
            for which, rows in groups.items()
            for at, name in enumerate(names)
        ]
    )


def _stages(table: pd.DataFrame, scheduled: bool) -> Floats:
    """Milliseconds of each stage, shape (stages, requests)."""
    marks = ["arrival_ns", *(["first_scheduled_ns"] if scheduled else []), "first_token_ns", "finish_ns"]
    times = np.stack([ints(table, mark) for mark in marks])
    return (times[1:] - times[:-1]) / 1e6


def phase_errors(live: pd.DataFrame, simulated: pd.DataFrame) -> pd.DataFrame:
    """Errors by eighths of the time of arrival: from_s, to_s, requests, and of TTFT and TPOT live_ms, simulated_ms,
    error_ms, error_pct, each name behind the metric's."""
    arrival = ints(live, "arrival_ns") / 1e9
    edges = np.linspace(arrival.min(), arrival.max(), PHASES + 1)
    group = np.clip(np.searchsorted(edges, arrival, side="right") - 1, 0, PHASES - 1)
    rows = []
    for at in np.unique(group).tolist():
        where: Figures = {"from_s": round(float(edges[at]), 3), "to_s": round(float(edges[at + 1]), 3)}
        rows.append(where | _group(live, simulated, group == at, ("ttft", "tpot")))
    return pd.DataFrame(rows)


def company_errors(live: pd.DataFrame, simulated: pd.DataFrame) -> pd.DataFrame:
    """Errors of TPOT by quarters of how many requests decoded beside a request on the average, itself included, in the
    measured run: decoding ("10.2 to 35.0"), requests, and as phase_errors."""
    company = mean_decoding(live)
    known = ~np.isnan(company)
    if not known.any():
        return pd.DataFrame()
    edges = np.unique(np.quantile(company[known], (0.25, 0.5, 0.75)))
    group = np.where(known, np.searchsorted(edges, company, side="left"), -1)
    rows = []
    for at in np.unique(group[known]).tolist():
        inside = company[group == at]
        name: dict[str, Any] = {"decoding": f"{inside.min():.1f} to {inside.max():.1f}"}
        rows.append(name | _group(live, simulated, group == at, ("tpot",)))
    return pd.DataFrame(rows)


def mean_decoding(requests: pd.DataFrame) -> Floats:
    """Requests between first and last token, averaged over each request's own decoding (requests,); NaN without."""
    first, last = ints(requests, "first_token_ns"), ints(requests, "finish_ns")
    events = np.unique(np.concatenate([first, last]))
    held = np.searchsorted(np.sort(first), events, side="right") - np.searchsorted(np.sort(last), events, side="right")
    area = np.concatenate([[0.0], np.cumsum(held[:-1] * np.diff(events), dtype=np.float64)])
    own = (last - first).astype(np.float64)
    total = np.interp(last, events, area) - np.interp(first, events, area)
    return np.where(own > 0, total / np.maximum(own, 1), np.nan)


def _group(
    live: pd.DataFrame, simulated: pd.DataFrame, rows: np.ndarray, metrics: tuple[str, ...]
) -> Figures:
    found: Figures = {"requests": int(rows.sum())}
    for metric in metrics:
        a, b = (table[f"{metric}_s"].to_numpy(dtype=np.float64)[rows] * 1e3 for table in (live, simulated))
        both = ~np.isnan(a) & ~np.isnan(b)
        found |= _errors(f"{metric}_", a[both], b[both])
    return found


def _errors(prefix: str, live: Floats, simulated: Floats) -> Figures:
    """live_ms, simulated_ms, error_ms and error_pct of means, behind `prefix`; None of nothing."""
    if not len(live):
        return {f"{prefix}{name}": None for name in ("live_ms", "simulated_ms", "error_ms", "error_pct")}
    a, b = float(live.mean()), float(simulated.mean())
    values = {"live_ms": a, "simulated_ms": b, "error_ms": b - a, "error_pct": 100 * (b / a - 1) if a else None}
    return {f"{prefix}{name}": None if value is None else round(value, 4) for name, value in values.items()}
