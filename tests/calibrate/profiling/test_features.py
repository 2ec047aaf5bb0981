"""From measurements, and from the iterations of a run, to the table of a fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmsim.calibrate.fitting.features import SUMS, fit_table, load_measurements, run_table, spread_warnings
from llmsim.errors import CalibrationError


def measurements(cases: int = 25, repeats: int = 3) -> pd.DataFrame:
    rows = [
        (f"decode-{i}={i + 1}*1@{10 * i + 2}", repeat, 0.01 * (i + 1) + 0.001 * repeat, 0.02 * (i + 1))
        for repeat in range(repeats)
        for i in range(cases)
    ]
    return pd.DataFrame(rows, columns=["case", "repeat", "seconds", "step_seconds"])


def test_a_case_is_its_median_its_spread_and_its_sums(tmp_path):
    path = tmp_path / "measurements.csv"
    measurements().to_csv(path, index=False)
    table = fit_table(load_measurements(path))
    assert list(table.columns) == ["case", *SUMS, "seconds", "spread_pct", "repeats"]
    row = table.iloc[4]
    assert row["case"] == "decode-4=5*1@42"
    assert (row["decode_tokens"], row["decode_context"], row["prefill_tokens"]) == (5, 210, 0)
    assert row["seconds"] == pytest.approx(0.051)
    assert row["spread_pct"] == pytest.approx(100 * 0.001 / 0.051)
    assert row["repeats"] == 3


def test_one_repeat_has_no_spread_and_raises_no_warning_about_it():
    table = fit_table(measurements(repeats=1))
    assert table["spread_pct"].isna().all()
    assert spread_warnings(table) == []


def test_repeats_that_scatter_are_said():
    table = fit_table(measurements())
    assert "1 of 25 cases scatter" in spread_warnings(table)[0]
    assert "decode-0 with 9.1 %" in spread_warnings(table)[0]
    assert spread_warnings(table, limit_pct=10) == []


def change(row: int, column: str, value: object) -> pd.DataFrame:
    table = measurements().astype(object)
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (measurements().drop(columns="seconds"), "has no column 'seconds'"),
        (change(6, "seconds", 0.0), "line 8: seconds must be a time above 0 s"),
        (change(6, "seconds", -0.1), "line 8: seconds must be"),
        (change(6, "seconds", np.nan), "line 8: seconds must be"),
        (change(6, "seconds", "inf"), "line 8: seconds must be"),
        (change(6, "step_seconds", "x"), "line 8: step_seconds must be"),
        (change(6, "repeat", -1), "line 8: repeat must be a whole number"),
        (change(6, "repeat", 0.5), "line 8: repeat must be a whole number"),
        (change(74, "seconds", np.nan), "line 76: .*interrupted run may have cut the last line"),
        (change(6, "case", "a=5@3"), "line 8: case 'a=5@3'.*fewer keys"),
        (change(6, "case", np.nan), "line 8: case must be a text"),
        (change(25, "repeat", 0), "line 27: this repeat of this case stands there twice"),
        (measurements(cases=19), "holds 19 different cases"),
    ],
)
def test_measurements_that_cannot_be_fitted_are_refused_with_file_and_line(tmp_path, table, problem):
    path = tmp_path / "measurements.csv"
    table.to_csv(path, index=False)
    with pytest.raises(CalibrationError, match=problem) as caught:
        load_measurements(path)
    assert "measurements.csv" in str(caught.value)


def test_a_file_that_is_not_there_or_empty_is_an_error(tmp_path):
    with pytest.raises(CalibrationError, match="cannot be read as CSV"):
        load_measurements(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(CalibrationError, match="cannot be read as CSV"):
        load_measurements(tmp_path / "empty.csv")


def test_a_started_campaign_can_be_read_before_it_is_enough_for_a_fit(tmp_path):
    path = tmp_path / "measurements.csv"
    measurements(cases=3).to_csv(path, index=False)
    assert len(load_measurements(path, min_cases=0)) == 9


def iterations(count: int = 100) -> pd.DataFrame:
    at = np.arange(count)
    sums = {name: at * 0 for name in SUMS} | {"decode_tokens": at % 7 + 1, "decode_context": 10 * at + 5}
    start = 1_000_000 * at
    return pd.DataFrame({"replica": 0, "iteration": at, "start_ns": start, "end_ns": start + 900_000, **sums})


def test_iterations_of_a_run_take_their_time_from_end_less_start():
    table = run_table(iterations())
    assert len(table) == 100
    assert (table["seconds"] == 9e-4).all()
    assert table["case"].iloc[17] == "0/17"
    assert table["group"].nunique() == 50
    assert (table["group"].diff().dropna() >= 0).all()


def test_with_timings_the_forward_pass_is_the_time():
    timings = pd.DataFrame({"iteration": np.arange(100)[::-1], "forward_ns": 700_000 + np.arange(100)[::-1]})
    table = run_table(iterations(), timings)
    assert (table["seconds"] * 1e9).round().tolist() == [700_000 + i for i in range(100)]


def test_of_a_long_run_evenly_spaced_iterations_are_taken():
    table = run_table(iterations(1000), max_rows=100)
    assert len(table) == 100
    assert table["case"].iloc[0] == "0/0"
    assert table["case"].iloc[-1] == "0/999"


def test_runs_that_cannot_be_fitted_are_refused():
    timings = pd.DataFrame({"iteration": np.arange(99), "forward_ns": 1})
    with pytest.raises(CalibrationError, match="no time for some iterations"):
        run_table(iterations(), timings)
    with pytest.raises(CalibrationError, match="an iteration twice"):
        run_table(iterations(), pd.concat([timings, timings]))
    with pytest.raises(CalibrationError, match="has 19 iterations"):
        run_table(iterations(19))
    stuck = iterations().assign(end_ns=lambda held: held["start_ns"])
    with pytest.raises(CalibrationError, match="iteration 0 took 0 ns"):
        run_table(stuck)
