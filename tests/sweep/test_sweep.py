"""Sweeps: values in the order of the cases, the same on any executor, and errors that are not lost."""

from __future__ import annotations

import pytest

from llmsim.errors import ConfigError, TraceError
from llmsim.schedulers.sarathi import Sarathi
from llmsim.spec.run_spec import load_runs
from llmsim.sweep.parallel import Case, run_many, workers

SPEC = load_runs(
    mapping={
        "calibration": "rtx-6000-ada/mistral-7b",
        "workload": {"trace": "sharegpt4", "num_requests": 40, "arrivals": {"kind": "poisson", "rate": 2.0}},
    }
)[0]


def test_processes_and_this_process_give_the_same_values_in_the_order_of_the_cases():
    cases = [Case(SPEC.replace(seed=seed), Sarathi(chunk_size=256)) for seed in (3, 1, 2)]
    seen: list[tuple[int, int]] = []
    with workers(2) as executor:
        apart = run_many(cases, executor=executor, progress=lambda done, total: seen.append((done, total)))
    assert apart == run_many(cases)
    assert [summary["seed"] for summary in apart] == [3, 1, 2]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_measure_may_be_written_on_the_spot():
    with workers(2) as executor:
        values = run_many([SPEC, SPEC.replace(seed=1)], lambda result: len(result.requests), executor=executor)
    assert values == [40, 40]


def test_an_error_in_a_worker_reaches_the_caller_as_it_was():
    bad = load_runs(mapping={"calibration": SPEC.calibration, "workload": {"trace": "no-such-trace"}})[0]
    with workers(2) as executor, pytest.raises((TraceError, ConfigError), match="no-such-trace"):
        run_many([SPEC, bad], executor=executor)


def test_one_worker_needs_no_process_and_none_is_refused():
    with workers(1) as executor:
        assert executor is None
    with pytest.raises(ConfigError, match="at least 1"), workers(0):
        pass
