"""Files of measured runs: what is read, and what is refused with file, row and remedy."""

from __future__ import annotations

import pandas as pd
import pytest

from llmsim.errors import ConfigError, TraceError
from llmsim.validation.measured_file import read_measured
from llmsim.validation.measured_run import measured_run
from tests.validation.measured import write

GOOD = {
    "request_id": ["a", "b", "c"],
    "arrival_s": [10.0, 10.5, 11.0],
    "queued_s": [10.01, 10.51, 11.01],
    "scheduled_s": [10.02, 10.52, 11.5],
    "first_token_s": [10.2, 10.7, 11.9],
    "last_token_s": [11.2, 10.7, 12.3],
    "input_tokens": [100, 50, 70],
    "output_tokens": [11, 1, 5],
    "ttft_s": [0.2, 0.2, 0.9],
    "tpot_s": [0.1, None, 0.1],
    "e2e_s": [1.2, 0.2, 1.3],
}


def made(tmp_path, **columns):
    return write(pd.DataFrame(GOOD | columns), tmp_path / "requests.csv")


def test_times_count_from_the_origin_that_is_asked_for(tmp_path):
    path = made(tmp_path)
    at_api, at_engine = measured_run(path), measured_run(path, "queued")
    assert at_api.requests["arrival_ns"].tolist() == [0, 500_000_000, 1_000_000_000]
    assert at_api.requests["first_token_ns"].tolist() == [200_000_000, 700_000_000, 1_900_000_000]
    assert at_engine.requests["first_token_ns"].tolist() == [190_000_000, 690_000_000, 1_890_000_000]
    summary = at_api.result().summary
    assert summary["mean_ttft_ms"] == pytest.approx(1300 / 3)
    assert summary["mean_tpot_ms"] == pytest.approx(100)
    assert summary["mean_itl_ms"] is None
    assert summary["output_throughput"] == pytest.approx(17 / 2.3)
    assert at_api.workload().prompt_tokens.tolist() == [100, 50, 70]


def test_rows_may_stand_in_any_order_and_on_a_unix_clock(tmp_path):
    later = {name: [t + 1.7e9 for t in GOOD[name]] for name in GOOD if name.endswith("_s") and name[0] in "aqsfl"}
    rows = pd.DataFrame(GOOD | later).iloc[::-1]
    run = measured_run(write(rows, tmp_path / "requests.csv"))
    assert run.requests["request_id"].tolist() == ["a", "b", "c"]
    assert run.requests["line"].tolist() == [4, 3, 2]
    assert run.requests["arrival_ns"].tolist() == pytest.approx([0, 5e8, 1e9], abs=1000)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"status": ["finished", "failed", "finished"]}, r"row 3, column 'status': 'failed' is a request that was not"),
        ({"first_token_s": [10.2, None, 11.9]}, r"row 3, column 'first_token_s': '' is empty"),
        ({"scheduled_s": [10.02, None, 11.5]}, r"row 3, column 'scheduled_s': '' is empty"),
        ({"request_id": ["a", "a", "c"]}, r"row 3, column 'request_id': 'a' stands in a row above too"),
        ({"request_id": ["a", "", "c"]}, r"row 3, column 'request_id': '' is empty"),
        ({"scheduled_s": [10.0, 10.52, 11.5]}, r"row 2, column 'scheduled_s': '10.0' is before the row's queued_s"),
        ({"last_token_s": [10.1, 10.7, 12.3]}, r"row 2, column 'last_token_s': '10.1' is before the row's first_t"),
        ({"output_tokens": [11, 0, 5]}, r"row 3, column 'output_tokens': '0' is not positive"),
        ({"input_tokens": [100, 2.5, 70]}, r"row 3, column 'input_tokens': '2.5' is not a whole number"),
        ({"ttft_s": [0.19, 0.2, 0.9]}, r"row 2, column 'ttft_s': '0.19' is not first_token_s - arrival_s"),
        ({"tpot_s": [0.0909, None, 0.1]}, r"row 2, column 'tpot_s': '0.0909' is not \(last_token_s - first_token_s\)"),
        ({"e2e_s": ["1.2", "soon", "1.3"]}, r"row 3, column 'e2e_s': 'soon' is not last_token_s - arrival_s"),
    ],
)
def test_what_cannot_be_used_is_refused_or_left_out_and_counted(tmp_path, columns, words):
    path = made(tmp_path, **columns)
    with pytest.raises(TraceError, match=words) as error:
        read_measured(path)
    assert str(path) in str(error.value)
    assert "--on-bad drop" in str(error.value)
    kept = read_measured(path, "drop")
    assert sum(kept.dropped.values()) == 1
    assert len(kept.rows) == 2
    assert "left out on request: 1" in " ".join(measured_run(path, on_bad="drop").notes())


def test_files_of_another_kind_and_other_arguments_are_refused(tmp_path):
    lacking = write(pd.DataFrame(GOOD).drop(columns="last_token_s"), tmp_path / "requests.csv")
    with pytest.raises(TraceError, match=r"no column 'last_token_s'.*llmsim bench"):
        read_measured(lacking)
    with pytest.raises(TraceError, match="no usable rows are left"):
        read_measured(made(tmp_path, status=["failed"] * 3), "drop")
    with pytest.raises(ConfigError, match="on_bad must be one of error, drop"):
        read_measured(made(tmp_path), "skip")
    with pytest.raises(ConfigError, match="origin must be one of arrival, queued"):
        measured_run(made(tmp_path), "sent")


def test_what_a_client_cannot_see_may_be_absent_or_empty(tmp_path):
    for columns in ({"queued_s": [None] * 3, "scheduled_s": [None] * 3}, {}):
        rows = pd.DataFrame(GOOD | columns)
        if not columns:
            rows = rows.drop(columns=["queued_s", "scheduled_s", "ttft_s", "tpot_s", "e2e_s"])
        path = write(rows, tmp_path / "requests.csv")
        assert not measured_run(path).scheduled
        with pytest.raises(ConfigError, match=r"'queued' needs times in column 'queued_s'.*--origin arrival"):
            measured_run(path, "queued")


def test_answers_that_came_all_at_once_are_told(tmp_path):
    path = made(tmp_path, last_token_s=[11.2, 10.7, 11.9], tpot_s=[0.1, None, 0], e2e_s=[1.2, 0.2, 0.9])
    assert "1 requests got several tokens all at once" in " ".join(measured_run(path).notes())
