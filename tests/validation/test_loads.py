"""Loads are shares of what the engine can serve."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmsim.errors import ConfigError
from llmsim.runs.simulation import simulate
from llmsim.spec.run_spec import load_runs
from llmsim.traces.arrivals import ArrivalsSpec
from llmsim.traces.workload import build_workload
from llmsim.validation.loads import at_load, default_workload, requests_for, saturated_rate
from llmsim.validation.study import Study
from tests.validation.worlds import CALIBRATION, run_spec


def test_an_overloaded_engine_serves_the_saturated_rate():
    spec = run_spec(rate=40.0, count=1500)
    rate = saturated_rate(spec, build_workload(spec.workload, spec.seed))
    served = simulate(spec).summary["request_throughput"]
    assert served == pytest.approx(rate, rel=0.05)
    assert simulate(at_load(spec, 0.5, rate)).summary["request_throughput"] == pytest.approx(0.5 * rate, rel=0.05)


def test_an_arrival_process_with_a_rate_keeps_its_kind():
    spec = run_spec()
    bursty = spec.replace(
        workload=replace(spec.workload, arrivals=ArrivalsSpec(kind="gamma", rate=1.0, burstiness=0.5))
    )
    arrivals = at_load(bursty, 0.8, 10.0).workload.arrivals
    assert (arrivals.kind, arrivals.rate, arrivals.burstiness) == ("gamma", 8.0, 0.5)
    closed = spec.replace(workload=replace(spec.workload, arrivals=ArrivalsSpec(kind="all_at_once")))
    assert at_load(closed, 0.8, 10.0).workload.arrivals == ArrivalsSpec(kind="poisson", rate=8.0)


@pytest.mark.parametrize("load", [0, -1, 100])
def test_a_load_that_is_none_is_refused(load):
    with pytest.raises(ConfigError, match=r"such as 0\.8"):
        at_load(run_spec(), load, 10.0)


def test_minutes_size_the_runs():
    few, many = (requests_for(run_spec(), minutes, 4) for minutes in (2, 4))
    assert many == pytest.approx(2 * few, abs=2)
    with pytest.raises(ConfigError, match="give more --minutes"):
        requests_for(run_spec(), 0.01, 4)


def test_the_default_workload_is_a_run():
    (spec,) = load_runs(mapping={"calibration": CALIBRATION, "workload": default_workload(2048)})
    drawn = build_workload(spec.workload, 0)
    assert drawn.prompt_tokens.max() <= 512
    assert drawn.output_tokens.mean() == pytest.approx(64, rel=0.25)


def test_studies_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="at least one load"):
        Study(spec=run_spec(), loads=())
    with pytest.raises(ConfigError, match="above 0"):
        Study(spec=run_spec(), rates=(1.0, 0.0))
    with pytest.raises(ConfigError, match="horizon_s"):
        Study(spec=run_spec().replace(horizon_s=5.0))
