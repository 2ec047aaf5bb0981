"""The report of a fit: one HTML page that works offline, from how good it is to where the numbers come from.

Errors and doubts, predicted against measured, residuals, coefficients, the other forms, achieved rates, scatter of the
repeats, what was left out of the fit, the manifest.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from llmsim.reports.plots.fit import (
    fit_points,
    prediction_figure,
    regime_errors,
    residual_figure,
    residuals,
    roofline_figure,
    spread_figure,
)
from llmsim.reports.plots.page import html_table, write_page
from llmsim.runs.contests import number

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from llmsim.calibrate.fitting.fit_result import BatchTimeFit
    from llmsim.calibrate.fitting.roofline import Roofline
    from llmsim.costs.forms import BatchTime
    from llmsim.costs.records import ErrorFigures

Sections = list["str | pd.DataFrame | go.Figure"]


def write_fit_report(
    fit: BatchTimeFit,
    path: str | Path,
    *,
    title: str = "Fit of batch times",
    manifest: Mapping[str, Any] | None = None,
    roofline: Roofline | None = None,
    warnings: Sequence[str] | None = None,
) -> Path:
    """Write the page and return its path; an earlier page is replaced. The same arguments give the same bytes.

    `manifest` is shown as YAML; `warnings` default to those of the fit. Raises ConfigError if `path` is a directory.
    """
    sections: Sections = [
        *_verdict(fit, fit.warnings if warnings is None else warnings),
        prediction_figure(fit_points(fit.predictions)),
        *_residuals(fit),
        *_coefficients(fit),
        *_candidates(fit),
        *_rates(roofline),
        *_spread(fit),
        *_outliers(fit),
        *_box(fit),
        *_manifest(manifest),
    ]
    return write_page(path, title, sections)


def _verdict(fit: BatchTimeFit, warnings: Sequence[str]) -> Sections:
    """Errors with and without outliers, and every doubt."""
    rows = []
    for words, errors in (("all cases", fit.errors), ("without outliers", fit.errors_without_outliers)):
        rows += [
            [f"{kind}, {words}", *_figures(figures)]
            for kind, figures in (("held out", errors.held_out), ("in the fit", errors.in_sample))
        ]
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in warnings)
    return [
        "<h2>How good is it?</h2>",
        html_table(["relative errors", "cases", "MAPE %", "p95 %", "max %"], rows),
        f'<p class="note">{html.escape(fit.errors.note)}</p>',
        f"<h2>Warnings</h2><ul>{lines}</ul>" if lines else "<p>No warnings.</p>",
    ]


def _figures(figures: ErrorFigures | None) -> list[str]:
    if figures is None:
        return ["-"] * 4
    return [f"{figures.cases:,}", *(f"{value:.2f}" for value in (figures.mape_pct, figures.p95_pct, figures.max_pct))]


def _residuals(fit: BatchTimeFit) -> Sections:
    note = "Above 0 a batch is predicted too long. A slope or a step along an axis is what the form misses."
    note += " Outliers may lie beyond the axis; they are listed below."
    return [
        "<h2>Residuals</h2>",
        f'<p class="note">{note}</p>',
        residual_figure(residuals(fit.predictions)),
        regime_errors(fit.predictions),
    ]


def _coefficients(fit: BatchTimeFit) -> Sections:
    rows = [
        [html.escape(part), html.escape(name), f"{value:.5g}", _readable(value, unit), unit, html.escape(source)]
        for part, name, value, unit, source in _numbers(fit.batch_time)
    ]
    head = ["batches", "coefficient", "value", "", "unit", "source"]
    return [
        f"<h2>Coefficients: {html.escape(fit.batch_time.form)}</h2>",
        f"<p>{html.escape(fit.reason)}.</p>",
        html_table(head, rows, text=(1, 5)),
    ]


def _numbers(batch_time: BatchTime, part: str = "all") -> Iterator[tuple[str, str, float, str, str]]:
    """(which batches, coefficient, value, unit, source) of every number."""
    if batch_time.tile_tokens is not None:
        yield part, "tile_tokens", batch_time.tile_tokens, "tokens", "The best of the sizes that were tried."
    for item in batch_time.coefficients:
        yield part, item.name, item.value, item.unit, item.source
    low = 1
    for stratum in batch_time.strata:
        most = stratum.max_tokens
        yield from _numbers(stratum.batch_time, f"{low:,} to {most:,} tokens" if most else f"{low:,} tokens and more")
        low = (most or 0) + 1


def _readable(value: float, unit: str) -> str:
    """Seconds with a prefix: 3e-5 s/token as '30 us/token'."""
    if not unit.startswith("s") or not value:
        return ""
    for prefix, size in (("", 1.0), ("m", 1e-3), ("u", 1e-6), ("n", 1e-9)):
        if abs(value) >= size:
            return f"{value / size:.4g} {prefix}{unit}"
    return f"{value / 1e-12:.4g} p{unit}"


def _candidates(fit: BatchTimeFit) -> Sections:
    rows = [
        [
            f"<b>{html.escape(one.name)}</b>" if one.chosen else html.escape(one.name),
            html.escape(one.form),
            str(one.numbers),
            *_figures(one.held_out)[1:],
            html.escape(one.note),
        ]
        for one in fit.candidates
    ]
    head = ["terms", "form", "numbers", "MAPE %", "p95 %", "max %", "held out"]
    return ["<h2>Forms that were compared</h2>", html_table(head, rows, text=(1, 6))]


def _rates(roofline: Roofline | None) -> Sections:
    if roofline is None:
        return []
    words = "".join(f"<p>{html.escape(line)}</p>" for line in roofline.words())
    return ["<h2>Achieved rates</h2>", words, roofline_figure(roofline)]


def _spread(fit: BatchTimeFit) -> Sections:
    known = fit.predictions["spread_pct"].dropna()
    if known.empty:
        return []
    middle, wide, widest = (float(known.quantile(share)) for share in (0.5, 0.95, 1.0))
    note = (
        f"Half of the repeats of a case lie within this distance. Over the cases: median {number(middle)} %, "
        f"p95 {number(wide)} %, widest {number(widest)} %. No form can predict better than this."
    )
    return ["<h2>Repeats</h2>", f'<p class="note">{note}</p>', spread_figure(fit.predictions)]


def _outliers(fit: BatchTimeFit) -> Sections:
    left_out = fit.outliers
    if left_out.empty:
        return ["<h2>Outliers</h2><p>No case was left out of the fit.</p>"]
    frame = pd.DataFrame(
        {
            "case": left_out["case"].str.slice(0, 120),
            "measured (ms)": 1e3 * left_out["measured_s"],
            "predicted (ms)": 1e3 * left_out["predicted_s"],
            "error %": 100 * left_out["relative_error"],
            "spread %": left_out["spread_pct"],
        }
    )
    words = f"{len(left_out)} cases were left out of the fit; the errors of all cases count them."
    return [f"<h2>Outliers</h2><p>{words}</p>", frame]


def _box(fit: BatchTimeFit) -> Sections:
    rows = [[item.quantity, f"{item.low:,}", f"{item.high:,}"] for item in fit.box.ranges]
    note = "Where the fit holds: outside these ranges a run is extrapolated, and says so."
    return ["<h2>Measured ranges</h2>", f'<p class="note">{note}</p>', html_table(["sum", "least", "most"], rows)]


def _manifest(manifest: Mapping[str, Any] | None) -> Sections:
    if not manifest:
        return []
    text = yaml.safe_dump(dict(manifest), sort_keys=False, allow_unicode=True)
    shown = f"<details open><summary>manifest</summary><pre>{html.escape(text)}</pre></details>"
    return ["<h2>Where the measurements come from</h2>", shown]
