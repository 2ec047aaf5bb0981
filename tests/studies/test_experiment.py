"""What experiments share: intervals, crossings, the published table, sizes, sweeps over a grid."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from llmsim.errors import ConfigError
from llmsim.schedulers.sarathi import Sarathi
from llmsim.studies import experiment
from llmsim.studies.experiment import Published, crossing, interval, options, run_of, size, with_bands, write_csv
from llmsim.sweep import sweep, workers

RUN = {
    "calibration": "rtx-6000-ada/mistral-7b",
    "workload": {"trace": "sharegpt4", "num_requests": 20, "arrivals": {"kind": "poisson", "rate": 1.0}},
}


def test_an_interval_is_students():
    sample = np.array([3.1, 2.7, 4.4, 3.9, 3.0])
    found = interval(sample)
    low, high = ttest_1samp(sample, 0).confidence_interval(0.95)
    assert found == pytest.approx((sample.mean(), low, high))
    assert np.isnan(interval([1.0]).low)


def test_a_crossing_lies_on_the_log_line_between_its_neighbours():
    x, y = [1.0, 2.0, 3.0], [0.1, 1.0, 100.0]
    assert crossing(x, y, 10.0) == pytest.approx(2.5)
    assert crossing(x, y, 1000.0) == float("inf")
    assert crossing(x, y, 0.05) == 1.0
    assert crossing(pd.Series(x, index=[7, 8, 9]), pd.Series(y, index=[7, 8, 9]), 10.0) == pytest.approx(2.5)
    with pytest.raises(ConfigError, match="at least one"):
        crossing([], [], 1.0)


def test_a_crossing_of_what_falls_again_is_the_first():
    assert crossing([1, 2, 3, 4], [1.0, 4.0, 1.0, 4.0], 2.0) == pytest.approx(1.5)


def test_differences_are_in_percent_of_the_published_or_in_its_unit():
    table = Published()
    table.add("rate", 2.0, 2.5, unit="req/s")
    table.add("gain, %", 26, 24.5, relative=False)
    table.add("curve", "in a figure only", 3.0)
    assert table.frame()["difference"].tolist() == ["+25.0 %", "-1.5", ""]
    assert table.frame()["ours"].tolist() == ["2.5 req/s", "24.5", "3"]


def test_the_environment_chooses_the_size(monkeypatch):
    monkeypatch.delenv("LLMSIM_REDUCED", raising=False)
    assert size(10, 2) == 10
    monkeypatch.setenv("LLMSIM_REDUCED", "1")
    assert size(10, 2) == 2


def test_results_go_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMSIM_RESULTS", str(tmp_path))
    path = write_csv("99_test", "table", pd.DataFrame({"x": [1 / 3]}))
    assert path == tmp_path / "99_test" / "table.csv"
    assert path.read_text() == "x\n0.333333\n"


def test_options_of_a_command_line_and_of_a_notebook(monkeypatch):
    assert options("x", ["--trace", "a.csv", "--json"]) == ("a.csv", True, None)
    with pytest.raises(SystemExit):
        options("x", ["--seeds", "1"])
    monkeypatch.setattr(experiment, "in_notebook", lambda: True)
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    assert options("x") == (None, False, None)


def test_an_experiment_without_a_file_is_an_error():
    with pytest.raises(ConfigError, match=r"no experiments/77_none\.yaml"):
        run_of("77_none")


def test_bands_are_intervals_over_what_is_not_a_key():
    frame = pd.DataFrame({"policy": ["a", "a", "b", "b"], "rate": [1, 1, 1, 1], "v": [1.0, 3.0, 5.0, 5.0]})
    bands = with_bands(frame, ["policy", "rate"], ["v"])
    assert bands["v"].tolist() == [2.0, 5.0]
    assert bands["v_low"].tolist() == pytest.approx([interval([1.0, 3.0]).low, 5.0])


def test_a_sweep_is_one_row_a_combination_and_the_same_in_processes():
    axes = {"scheduler": ["vllm_v1", Sarathi(chunk_size=128)], "workload.arrivals.rate": [0.5, 2.0], "seed": [1]}

    def measure(result):
        return {"ttft": result.summary["median_ttft_ms"]}

    here = sweep(RUN, axes, measure)
    with workers(2) as executor:
        there = sweep(RUN, axes, measure, executor=executor)
    pd.testing.assert_frame_equal(here, there)
    assert here["scheduler"].tolist() == ["vllm_v1"] * 2 + [repr(Sarathi(chunk_size=128))] * 2
    assert here["rate"].tolist() == [0.5, 2.0] * 2
    assert here["ttft"].nunique() == 4


def test_a_sweep_over_nothing_keeps_its_columns():
    assert list(sweep(RUN, {"seed": []}, lambda result: {}).columns) == ["seed"]
