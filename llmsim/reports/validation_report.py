"""The report of `llmsim validate`: one HTML page that works offline, from how far off to where and why."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from llmsim.reports.plots.against import (
    busy_figure,
    busy_over_time,
    error_figure,
    error_points,
    pace_figure,
    pace_points,
)
from llmsim.reports.plots.page import html_table, write_page
from llmsim.reports.plots.validation import (
    cause_figure,
    cdf_pair_figure,
    iteration_figure,
    iteration_points,
    queue_figure,
    request_figure,
    request_points,
    speed_figure,
    speed_over_time,
)
from llmsim.runs.contests import number
from llmsim.validation.compare import METRICS, STATISTICS
from llmsim.validation.text import percent, signed

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from llmsim.validation.against import Against
    from llmsim.validation.compare import ErrorTable
    from llmsim.validation.compare_runs import Comparison

Sections = list["str | pd.DataFrame | go.Figure"]
NOTE = (
    "Errors are simulated / live - 1. Both runs had the same requests and the same scheduler objects; the live one ran "
    "every batch on the device. How each figure is made: docs/validation.md."
)
AGAINST_NOTE = (
    "Errors are simulated / live - 1. The live run was measured on a server, request by request; its requests are the "
    "simulation's workload. How each figure is made: docs/validation.md."
)


def write_validation_report(comparisons: Sequence[Comparison], path: str | Path) -> Path:
    """Write the page on these comparisons, in their order, and return its path; an earlier page is replaced.

    Raises ConfigError if `path` is a directory. The same comparisons give the same bytes.
    """
    sections: Sections = [f'<p class="note">{NOTE}</p>', *_side_by_side(comparisons)]
    for found in comparisons:
        sections += _one(found)
    return write_page(path, "Live against simulated", sections)


def write_against_report(comparisons: Sequence[Against], path: str | Path) -> Path:
    """Write the page on these comparisons with a measured run, in their order, and return its path.

    Raises ConfigError if `path` is a directory. The same comparisons give the same bytes.
    """
    sections: Sections = [f'<p class="note">{AGAINST_NOTE}</p>']
    for found in comparisons:
        sections += _against(found)
    return write_page(path, "Measured against simulated", sections)


def _against(found: Against) -> Sections:
    """One policy: how far off, at which stage, when, and at which pace."""
    sections: Sections = [
        f"<h2>{html.escape(f'{found.label} against {found.live.name}: {found.errors.requests:,} requests')}</h2>",
        _error_table(found.errors),
        "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in found.notes) + "</ul>",
        cdf_pair_figure(found.live, found.simulated),
        request_figure(request_points(found.live, found.simulated)),
        found.stages.round(2),
        error_figure(error_points(found.live, found.simulated)),
        found.phases.round(2),
        found.company.round(2),
        busy_figure(busy_over_time(found.live), busy_over_time(found.simulated)),
    ]
    if found.pace is not None and len(found.pace.windows):
        sections += [pace_figure(pace_points(found.pace.windows)), found.pace.by_decodes(), found.pace.by_time()]
        sections.append(found.pace.stretches.round(3) if len(found.pace.stretches) else "")
    return [*sections, _counterfactuals(found), _provenance(found.live.manifest), _provenance(found.simulated.manifest)]


def _side_by_side(comparisons: Sequence[Comparison]) -> Sections:
    """Errors of every run in a row, as calibrated and at the speed that probes found; and whether replays agree."""
    metrics = ("ttft", "tpot", "e2el")
    head = ["run", "device", *(statistic for _ in metrics for statistic in STATISTICS)]
    groups = [("", 2), *((f"{metric.upper()}, error %", len(STATISTICS)) for metric in metrics)]
    rows = []
    for found in comparisons:
        for words, errors in (("as calibrated", found.errors), ("as found during the run", found.at_found_speed)):
            if errors is not None:
                cells = [signed(errors.error(metric, s)) for metric in metrics for s in STATISTICS]
                rows.append([html.escape(found.label), words, *cells])
    parted = [found for found in comparisons if found.replay != "identical"]
    replay = (
        "Every live run, replayed on its recorded times, made identical batches: whatever differs below is in the "
        "times of iterations."
        if not parted
        else "Replays parted from the live runs: " + "; ".join(f"{f.label}: {f.replay}" for f in parted)
    )
    table = html_table(head, rows, groups=groups, text=(1,))
    return ["<h2>How far off is the simulation?</h2>", table, f"<p>{html.escape(replay)}</p>"]


def _one(found: Comparison) -> Sections:
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in found.notes)
    live = found.live.result
    return [
        f"<h2>{html.escape(found.label)}: {found.rate:.2f} requests/s, {found.errors.requests:,} requests</h2>",
        _error_table(found.errors),
        f"<ul>{notes}</ul>" if notes else "",
        cdf_pair_figure(live, found.simulated),
        request_figure(request_points(live, found.simulated)),
        cause_figure(found.causes),
        found.causes.round(2),
        iteration_figure(iteration_points(found.iterations.table)),
        found.iterations.by_regime().round(2),
        found.iterations.by_size().round(2),
        _host(found),
        speed_figure(speed_over_time(found.iterations.table), found.drift_samples),
        _counterfactuals(found),
        queue_figure(live, found.simulated),
        _provenance(found.live.result.manifest),
    ]


def _error_table(errors: ErrorTable) -> str:
    by = {(line.metric, line.statistic): line for line in errors}
    head = ["", *(part for _ in STATISTICS for part in ("live", "simulated", "error"))]
    groups = [("", 1), *((statistic, 3) for statistic in STATISTICS)]
    rows = []
    for metric in METRICS:
        cells: list[str] = []
        for statistic in STATISTICS:
            line = by[metric, statistic]
            cells += [number(line.live), number(line.simulated), percent(line.error_pct)]
        rows.append([f"{metric.upper()} (ms)", *cells])
    whole = [
        [
            f"{line.metric} ({line.unit})" if line.unit else line.metric,
            *(number(line.live), number(line.simulated), percent(line.error_pct)),
        ]
        for line in errors
        if line.statistic == "run"
    ]
    own = ", ".join(f"{metric.upper()} {percent(value)}" for metric, value in errors.per_request_pct.items())
    return (
        html_table(head, rows, groups=groups)
        + html_table(["run", "live", "simulated", "error"], whole)
        + f'<p class="note">Median absolute error of the single requests: {own}.</p>'
    )


def _host(found: Comparison) -> str:
    host = found.iterations.host()
    return (
        f"<p>Host overhead an iteration: median {host['median_us']:.0f} us, mean {host['mean_us']:.0f} us, p99 "
        f"{host['p99_us']:.0f} us; the calibration says {host['model_us']:.0f} us.</p>"
    )


def _counterfactuals(found: Comparison | Against) -> str:
    metrics = ("ttft", "tpot", "e2el")
    rows = [
        [html.escape(other.name), f"{other.factor:.3f}", *(percent(other.errors.error(m, "mean")) for m in metrics)]
        for other in found.counterfactuals
    ]
    head = ["simulated with", "batch times x", *(f"mean {metric.upper()}" for metric in metrics)]
    return html_table(head, rows)


def _provenance(manifest: dict[str, Any]) -> str:
    keys = ("live", "measured", "calibration", "workload", "versions", "git")
    shown = {key: manifest[key] for key in keys if key in manifest}
    config = manifest.get("config", "")
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    body = html.escape(f"{text}\n{config if isinstance(config, str) else yaml.safe_dump(config)}")
    return f"<details><summary>where this comes from</summary><pre>{body}</pre></details>"
