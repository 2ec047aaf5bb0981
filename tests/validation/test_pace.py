"""Iterations out of the times of first and last tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmsim.validation.iteration_counts import count_iterations
from llmsim.validation.pace import pace_of
from llmsim.validation.stages import mean_decoding
from llmsim.validation.token_counts import Stretch, tied_stretches
from llmsim.validation.windows import decode_windows
from tests.validation.worlds import calibration, live_run, run_spec

MS = 1_000_000
SPEC = run_spec(rate=3.0, count=150, scheduler="vllm_v1,max_num_batched_tokens=2048,max_num_seqs=32")


def requests(*rows):
    """Rows of (arrival, scheduled, first token, last token) in ms, prompt and output tokens."""
    names = ["arrival_ns", "first_scheduled_ns", "first_token_ns", "finish_ns", "prompt_tokens", "generated"]
    table = pd.DataFrame(rows, columns=names)
    for name in names[:4]:
        table[name] *= MS
    return table.assign(id=range(len(table)))


THREE = requests((0, 0, 10, 110, 100, 11), (0, 0, 30, 80, 50, 6), (50, 60, 70, 110, 20, 5))


def test_a_window_is_where_a_known_set_only_decodes():
    windows = decode_windows(THREE)
    # 10 to 30 ms: the second prompt is under way; 30 to 70: the third is from 60 on.
    assert windows["start_ns"].tolist() == [70 * MS, 80 * MS]
    assert windows["window_ns"].tolist() == [10 * MS, 30 * MS]
    assert windows["decodes"].tolist() == [3, 2]
    assert windows["context"].tolist() == [107 + 55 + 21, 108 + 22]
    assert windows["longest"].tolist() == [107, 108]


def test_without_scheduled_times_a_prompt_may_be_under_way_from_its_arrival():
    early = THREE.assign(first_scheduled_ns=-1, arrival_ns=[0, 0, 5 * MS])
    assert decode_windows(early)["start_ns"].tolist() == [70 * MS, 80 * MS]
    assert decode_windows(early.assign(arrival_ns=[0, 0, 0]))["start_ns"].tolist() == [70 * MS, 80 * MS]
    late = requests((0, 0, 10, 50, 10, 5), (0, 0, 20, 70, 10, 6), (60, 0, 80, 90, 10, 2))
    assert decode_windows(late.assign(first_scheduled_ns=-1))["start_ns"].tolist() == [20 * MS, 80 * MS]


def test_tokens_count_iterations_exactly_where_events_coincide():
    windows = decode_windows(THREE)
    stretches, contradictions = tied_stretches(THREE, windows)
    assert contradictions == 0
    assert stretches == [Stretch(0, 1, 1), Stretch(1, 2, 3)] or stretches == [Stretch(0, 2, 4)]
    assert sum(s.iterations for s in stretches) == 4
    wrong = requests((0, 0, 10, 50, 10, 5), (0, 0, 10, 50, 10, 6))
    assert tied_stretches(wrong, decode_windows(wrong)) == ([], 1)


def test_the_mean_company_of_a_request():
    assert mean_decoding(THREE).tolist() == pytest.approx([(20 + 80 + 30 + 60) / 100, (80 + 30) / 50, (30 + 60) / 40])
    assert np.isnan(mean_decoding(requests((0, 0, 10, 10, 5, 1)))).all()


def test_the_pace_of_a_run_at_the_calibrations_speed_has_no_bias():
    pace = pace_of(live_run(SPEC).result.requests, calibration())
    assert len(pace.windows) > 50
    assert pace.bias_pct == pytest.approx(0, abs=0.05)
    assert pace.batch_factor == pytest.approx(1, abs=0.001)
    assert (pace.windows["off"] < 0.05).all()
    assert pace.contradictions == 0
    assert pace.stretches["bias_pct"].abs().max() < 0.2
    counted = pace.windows["iterations"].sum()
    assert pace.by_decodes()["iterations"].iloc[-1] == pace.by_time()["iterations"].sum() == counted


@pytest.mark.parametrize("bias", [0.7, 0.9, 0.97, 1.08, 1.3, 1.6])
@pytest.mark.parametrize("stamped_by", ["engine", "client"])
def test_a_biased_model_does_not_spoil_the_counts(bias, stamped_by):
    table = live_run(SPEC, bias=bias, scatter=0.01).result.requests
    if stamped_by == "client":  # late by up to 0.2 ms, hardly ever two at the same time
        random = np.random.default_rng(0)
        table = table.assign(finish_ns=table["finish_ns"] + random.integers(1, 200_000, len(table)))
    pace = pace_of(table, calibration())
    assert len(pace.stretches)  # a request that only decoded beside others counts its own
    assert pace.batch_factor == pytest.approx(bias, rel=0.01)


def test_counts_by_tokens_find_what_quotients_miss():
    """A model that is right at either end and 14 % too fast in between: rounding alone takes 8 iterations for 9."""

    class Model:
        def seconds(self, work):
            return 0.010 + 0.0002 * work.decode_tokens

    decodes = np.arange(2, 62)
    truth = 1 + 0.14 * np.sin(np.pi * (decodes - 2) / 59)
    iterations = 3 + decodes % 7
    model = np.array([0.010 + 0.0002 * n for n in decodes])
    windows = pd.DataFrame(
        {
            "start_ns": np.arange(60) * 10**9,
            "window_ns": np.rint(1e9 * iterations * model * truth).astype(np.int64),
            "decodes": decodes,
            "context": 1000 * decodes,
            "longest": 1000,
        }
    )
    assert (count_iterations(windows, Model())["iterations"] != iterations).any()
    known = [Stretch(i, i + 6, int(iterations[i : i + 6].sum())) for i in range(0, 60, 6)]
    assert count_iterations(windows, Model(), known)["iterations"].tolist() == iterations.tolist()
