"""The fit finds the model that made the data, says how far off it is, and takes the simplest form that is as good."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.calibrate.fitting.features import run_table
from llmsim.calibrate.fitting.fit_result import BatchTimeFit
from llmsim.calibrate.fitting.robust_fit import huber_residuals, robust_fit
from llmsim.calibrate.fitting.selection import fit_batch_time
from llmsim.calibrate.profiling.plan import default_plan
from llmsim.core.batch import Work
from llmsim.costs.calibration import load_calibration
from llmsim.costs.linear import Hinge, Linear
from llmsim.costs.stratified import Stratified, Tiled
from llmsim.errors import CalibrationError
from llmsim.runs.simulation import simulate
from llmsim.spec.run_spec import load_runs
from tests.calibrate.profiling.batches import PLAN, priced
from tests.effort import cases

CONTEXTS = {"per_decode_context": 3e-8, "per_prefill_attention": 8e-10}
LINEAR = Linear(constant=5e-3, per_token=3e-5, per_sequence=5e-6, **CONTEXTS)
HINGE = Hinge(floor=5e-3, constant=1e-3, per_token=3e-5, **CONTEXTS)
TILED = Tiled(tile_tokens=64, per_tile=2e-3, constant=5e-3, per_token=1e-6, **CONTEXTS)
STRATA = Stratified(
    [
        (300, Linear(constant=5e-3, per_token=6e-5, per_sequence=5e-6, **CONTEXTS)),
        (None, Linear(constant=1.5e-2, per_token=2e-5, per_sequence=5e-6, **CONTEXTS)),
    ]
)
FORMS = {"linear": LINEAR, "hinge": HINGE, "tiled": TILED, "stratified": STRATA}


@cache
def fitted(form: str, noise: float = 0.0, strays: float = 0.0, seed: int = 1) -> BatchTimeFit:
    """The fit to batches that such a device priced, made once; do not write to its tables."""
    return fit_batch_time(priced(FORMS[form], noise=noise, strays=strays, seed=seed)[0])


def found(fit) -> dict[str, float]:
    return {item.name: item.value for item in fit.batch_time.coefficients}


def test_linear_coefficients_are_recovered_exactly():
    fit = fitted("linear")
    assert fit.batch_time.form == "linear"
    assert found(fit) == pytest.approx(
        {"constant": 5e-3, "per_token": 3e-5, "per_sequence": 5e-6, **CONTEXTS}, rel=1e-4
    )
    assert fit.errors.held_out.max_pct <= 0.01
    assert fit.warnings == ()


def test_hinge_coefficients_are_recovered_exactly():
    fit = fitted("hinge")
    assert fit.batch_time.form == "hinge"
    assert found(fit) == pytest.approx({"floor": 5e-3, "constant": 1e-3, "per_token": 3e-5, **CONTEXTS}, rel=1e-4)


def test_tiles_are_recovered_exactly():
    fit = fitted("tiled")
    assert (fit.batch_time.form, fit.batch_time.tile_tokens) == ("tiled", 64)
    assert found(fit) == pytest.approx({"per_tile": 2e-3, "constant": 5e-3, "per_token": 1e-6, **CONTEXTS}, rel=1e-3)


def test_strata_are_recovered_exactly():
    fit = fitted("stratified")
    assert fit.batch_time.form == "stratified"
    low, high = fit.batch_time.strata
    tokens = sorted({case.tokens for case in PLAN.cases})
    assert not [n for n in tokens if min(300, low.max_tokens) < n <= max(300, low.max_tokens)]
    assert (low.batch_time.value("constant"), low.batch_time.value("per_token")) == pytest.approx(
        (5e-3, 6e-5), rel=1e-3
    )
    assert (high.batch_time.value("constant"), high.batch_time.value("per_token")) == pytest.approx(
        (1.5e-2, 2e-5), rel=1e-3
    )
    assert any("the strata do not meet" in line for line in fit.warnings)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", cases([1, 2], 1))
def test_with_noise_and_strays_the_form_is_found_and_the_strays_are_flagged(form, seed):
    table, strays = priced(FORMS[form], noise=0.02, strays=0.03, seed=seed)
    fit = fitted(form, noise=0.02, strays=0.03, seed=seed)
    assert fit.batch_time.form == form
    flagged = set(fit.predictions.index[fit.predictions["outlier"]])
    assert set(strays) <= flagged
    assert len(flagged - set(strays)) <= 2
    # 2 % of normal noise is 1.6 % on average; a fit adds a little.
    assert 1.2 < fit.errors_without_outliers.held_out.mape_pct < 2.1
    assert fit.errors.held_out.mape_pct > fit.errors_without_outliers.held_out.mape_pct
    assert fit.errors.held_out.cases == len(table)
    assert f"also the {len(flagged)} that were left out" in fit.errors.note
    truth = np.array([FORMS[form].seconds(case.work()) for case in PLAN.cases])
    assert np.abs(fit.predictions["predicted_s"] / truth - 1).mean() < 0.01


def test_strays_do_not_bend_the_coefficients():
    clean = found(fitted("linear", noise=0.02))
    bent = found(fitted("linear", noise=0.02, strays=0.03, seed=1))
    assert bent["constant"] == pytest.approx(clean["constant"], rel=0.01)
    assert bent["per_token"] == pytest.approx(clean["per_token"], rel=0.01)


def test_the_simplest_form_that_is_as_good_is_chosen_and_all_are_on_record():
    simple = Linear(constant=5e-3, per_token=3e-5, **CONTEXTS)
    fit = fit_batch_time(priced(simple, noise=0.02)[0])
    chosen = [one for one in fit.candidates if one.chosen]
    assert [(one.name, one.numbers) for one in chosen] == [("linear", 4)]
    assert {one.form for one in fit.candidates} == {"linear", "hinge", "tiled", "stratified"}
    assert "linear" in fit.reason


def test_neither_the_order_of_the_rows_nor_their_index_changes_anything():
    few = default_plan(max_model_len=8192, kv_tokens=600_000, max_tokens=4096, max_seqs=256, cases=60)
    table, _ = priced(STRATA, noise=0.02, strays=0.03, plan=few)
    shuffled = table.sample(frac=1, random_state=5)
    first, second = fit_batch_time(table, seed=3), fit_batch_time(shuffled, seed=3)
    assert first.batch_time == second.batch_time
    assert first.errors == second.errors
    assert first.candidates == second.candidates
    assert second.predictions["case"].tolist() == shuffled["case"].tolist()
    assert fit_batch_time(table, seed=3).batch_time == first.batch_time


def test_predictions_are_those_of_the_cost_model():
    fit = fitted("hinge", noise=0.02)
    model = fit.batch_time.cost_model()
    assert fit.predictions["predicted_s"].tolist() == [model.seconds(case.work()) for case in PLAN.cases]
    assert (fit.predictions["held_out_predicted_s"] != fit.predictions["predicted_s"]).mean() > 0.9
    assert not list(fit.box.outside(PLAN.cases[0].work()))
    assert list(fit.box.outside(Work(decode_tokens=257, decode_context=257)))


def test_every_coefficient_says_where_it_comes_from():
    fit = fitted("stratified", noise=0.02)
    sources = [item.source for part in fit.batch_time.strata for item in part.batch_time.coefficients]
    assert all(source.startswith("Fitted: 160 cases, held-out MAPE 1.") for source in sources)


def test_a_term_that_no_case_shows_is_left_out_and_said():
    decodes = priced(LINEAR, noise=0.01)[0].query("prefill_tokens == 0")
    fit = fit_batch_time(decodes)
    assert "per_prefill_attention" not in found(fit)
    assert "per_prefill_attention cannot be found: no case has any" in fit.warnings
    # A decode is one token and one sequence.
    assert any(line.startswith("per_sequence cannot be found: in these cases it follows") for line in fit.warnings)
    assert found(fit)["per_token"] == pytest.approx(3.5e-5, rel=0.05)
    assert fit.box.range("prefill_tokens").high == 0
    assert list(fit.box.outside(Work(prefill_tokens=1, prefill_seqs=1, prefill_attention=1)))


def test_when_too_much_lies_far_off_the_reader_is_told_and_no_more_than_a_tenth_is_left_out():
    table, strays = priced(LINEAR, noise=0.01, strays=0.2)
    fit = fit_batch_time(table)
    assert len(strays) == 32
    assert len(fit.outliers) == 16
    assert any("So many are no accident" in line for line in fit.warnings)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda table: table.head(19), "at least 20 cases but got 19"),
        (lambda table: table.drop(columns="decode_context"), "no column 'decode_context'"),
        (lambda table: table.assign(seconds=table["seconds"].where(table.index != 7, 0.0)), "must be above 0"),
        (lambda table: table.assign(seconds=np.nan), "must be above 0"),
        (lambda table: table.iloc[[0] * 30], "folds need as many different batches"),
    ],
)
def test_tables_that_cannot_be_fitted_are_refused(change, problem):
    with pytest.raises(CalibrationError, match=problem):
        fit_batch_time(change(priced(LINEAR)[0]))


def test_twenty_cases_are_enough_for_the_simple_forms():
    fit = fit_batch_time(priced(LINEAR)[0].sample(20, random_state=1))
    assert fit.batch_time.form == "linear"
    assert all(one.numbers <= 5 for one in fit.candidates)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.0, 0.3), st.integers(2, 8))
def test_huber_converges_and_no_coefficient_is_negative(seed, noise, terms):
    rng = np.random.default_rng(seed)
    columns = np.exp(rng.uniform(0, 12, (60, terms)))
    columns[:, 0] = 1.0
    seconds = columns @ np.exp(rng.uniform(-12, 0, terms)) * np.exp(noise * rng.standard_normal(60))
    assert np.isfinite(huber_residuals(columns, seconds)).all()
    fitted = robust_fit(columns, seconds)
    assert (fitted.coefficients >= 0).all()
    assert fitted.outliers.sum() <= 6


def test_the_iterations_of_a_simulated_run_give_back_the_calibration_it_ran_on():
    spec = {
        "workload": {"trace": "azure-conv", "num_requests": 60, "arrivals": {"kind": "poisson", "rate": 2.0}},
        "calibration": "a100/llama-3-8b",
        "scheduler": {"name": "vllm_v1", "max_num_batched_tokens": 512},
        "engine": {"host_overhead_s": 0.0},
        "seed": 1,
    }
    result = simulate(load_runs(mapping=spec)[0])
    fit = fit_batch_time(run_table(result.iterations))
    assert fit.errors.held_out.max_pct < 0.1
    truth = load_calibration("a100/llama-3-8b").batch_time.strata[0].batch_time
    ours = fit.batch_time
    assert ours.form == "linear"
    assert ours.value("constant") == pytest.approx(truth.value("constant"), rel=1e-3)
    per_prefill = ours.value("per_token") + ours.value("per_prefill_token")
    assert per_prefill == pytest.approx(truth.value("per_prefill_token"), rel=0.01)
    assert ours.value("per_decode_context") == pytest.approx(truth.value("per_decode_context"), rel=1e-3)
    assert ours.value("per_prefill_context") == pytest.approx(truth.value("per_prefill_context"), rel=0.01)
