"""The page of a fit holds its numbers, its doubts and its origin, and is the same for the same fit."""

from __future__ import annotations

import re

import numpy as np
import pytest

from llmsim.calibrate.fitting.roofline import Roofline, achieved, device_ceilings
from llmsim.calibrate.fitting.selection import fit_batch_time
from llmsim.costs.linear import Hinge
from llmsim.costs.models import load_model
from llmsim.errors import ConfigError
from llmsim.reports.fit_report import write_fit_report
from llmsim.reports.plots.fit import (
    fit_points,
    prediction_figure,
    regime_errors,
    residual_figure,
    residuals,
    spread_figure,
)
from tests.calibrate.profiling.batches import priced

MODEL = Hinge(floor=5e-3, constant=1e-3, per_token=3e-5, per_decode_context=3e-8, per_prefill_attention=8e-10)


@pytest.fixture(scope="module")
def fit():
    table, _ = priced(MODEL, noise=0.02, strays=0.03)
    table["spread_pct"] = np.linspace(0.1, 4.0, len(table))
    table.loc[3, "spread_pct"] = np.nan
    return fit_batch_time(table)


def text_of(path) -> str:
    """The page's words, without scripts and tags."""
    page = re.sub(r"<(script|style).*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_page_holds_errors_coefficients_forms_outliers_ranges_and_manifest(fit, tmp_path):
    rates = Roofline(achieved(fit.predictions, load_model("llama-3-8b"), value_bytes=2), device_ceilings("NVIDIA H200"))
    page = text_of(
        write_fit_report(
            fit,
            tmp_path / "fit.html",
            title="A <card>",
            manifest={"driver": "580 <x>"},
            roofline=rates,
            warnings=["a<b"],
        )
    )
    for words in (
        "A &lt;card&gt;",
        "driver: 580 &lt;x&gt;",
        "a&lt;b",
        f"{fit.errors.held_out.mape_pct:.2f}",
        f"{fit.errors_without_outliers.held_out.mape_pct:.2f}",
        "Coefficients: hinge",
        "ms",
        "989 TFLOP/s",
        "2 strata, own contexts",
        f"{len(fit.outliers)} cases were left out of the fit",
        "prefill_attention",
    ):
        assert words in page, words
    for coefficient in fit.batch_time.coefficients:
        assert f"{coefficient.name} {coefficient.value:.5g}" in page
    for case in fit.outliers["case"]:
        assert case[:60].replace("<", "&lt;") in page


def test_the_page_is_the_same_for_the_same_fit(fit, tmp_path):
    first, second = (write_fit_report(fit, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_without_rates_and_manifest_their_sections_are_left_out(fit, tmp_path):
    page = text_of(write_fit_report(fit, tmp_path / "fit.html"))
    assert "Achieved rates" not in page
    assert "Where the measurements come from" not in page
    with pytest.raises(ConfigError, match="is a directory"):
        write_fit_report(fit, tmp_path)


def test_the_figures_show_every_case_once_and_outliers_again(fit):
    points = fit_points(fit.predictions)
    traces = {trace.name: trace for trace in prediction_figure(points).data}
    shown = sum(len(traces[name].x) for name in ("prefill", "decode", "mixed"))
    assert shown == len(fit.predictions)
    assert len(traces["left out of the fit"].x) == len(fit.outliers)
    assert np.allclose(points["held_out_ms"] / points["measured_ms"] - 1, points["error_pct"] / 100)


def test_residuals_are_drawn_against_tokens_sequences_and_keys(fit):
    frame = residuals(fit.predictions)
    assert len(frame) == 3 * len(fit.predictions)
    keys = frame[frame["against"] == "context"]["value"].to_numpy()
    held = fit.predictions
    assert (keys == held["decode_context"] + held["prefill_context"] + held["prefill_tokens"]).all()
    made = residual_figure(frame)
    low, high = made.layout.yaxis.range
    kept = frame[~frame["outlier"]]["error_pct"]
    assert low < kept.min() < kept.max() < high


def test_errors_of_the_regimes_add_up_to_those_of_all(fit):
    frame = regime_errors(fit.predictions).set_index("regime")
    parts = frame.loc[["prefill", "decode", "mixed"]]
    assert parts["cases"].sum() == frame.loc["all", "cases"] == 160
    mean = (parts["MAPE %"] * parts["cases"]).sum() / 160
    assert frame.loc["all", "MAPE %"] == pytest.approx(mean)
    assert frame.loc["all", "MAPE %"] == pytest.approx(fit.errors.held_out.mape_pct, abs=0.006)


def test_cases_timed_once_have_no_scatter_to_show(fit):
    shown = [trace for trace in spread_figure(fit.predictions).data if trace.name in ("prefill", "decode", "mixed")]
    assert sum(len(trace.x) for trace in shown) == len(fit.predictions) - 1
