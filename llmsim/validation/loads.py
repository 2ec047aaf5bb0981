"""Loads as shares of what a run's engine and policy can serve, so that 0.8 means the same on a laptop and an H200."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim.costs.calibration import load_calibration
from llmsim.errors import ConfigError
from llmsim.runs.simulation import simulate
from llmsim.traces.arrivals import ArrivalsSpec
from llmsim.traces.workload import build_workload

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec
    from llmsim.traces.workload import Workload

SATURATED_REQUESTS = 2000


def default_workload(max_model_len: int) -> dict[str, Any]:
    """Lengths for those who name no workload: prompts of a sixteenth of the model's positions on average, outputs of a
    thirty-second, both lognormal and cut at four times that, as mapping for a RunSpec."""
    prompt, output = max_model_len // 16, max_model_len // 32
    lengths = {
        kind: {"kind": "lognormal", "mean": mean, "std": 0.8 * mean, "low": 4, "high": 4 * mean}
        for kind, mean in (("prompt", prompt), ("output", output))
    }
    return {
        "lengths": {"kind": "synthetic", **lengths},
        "arrivals": {"kind": "poisson", "rate": 1.0},
        "num_requests": 100,
    }


def saturated_rate(spec: RunSpec, workload: Workload, *, scheduler: Any = None) -> float:
    """Requests a second that the simulated engine completes when it never runs out of them.

    The very requests of `workload`, repeated to about 2,000 so that filling and emptying hardly count, all there from
    the start; their number over the time to the last.
    """
    times = math.ceil(SATURATED_REQUESTS / len(workload))
    flood = replace(
        workload,
        arrival_ns=np.zeros(times * len(workload), dtype=np.int64),
        prompt_tokens=np.tile(workload.prompt_tokens, times),
        output_tokens=np.tile(workload.output_tokens, times),
        slo_index=np.tile(workload.slo_index, times),
        max_concurrency=None,
    )
    return float(simulate(spec, scheduler=scheduler, workload=flood).summary["request_throughput"])


def at_load(spec: RunSpec, load: float, rate: float) -> RunSpec:
    """The run with Poisson arrivals at `load` times `rate`; an arrival process with a rate of its own keeps its kind.

    Raises ConfigError for a load that is not positive.
    """
    if not 0 < load < 100:
        raise ConfigError(f"a load is a share of what the engine can serve, such as 0.8, but got {load:g}")
    arrivals = spec.workload.arrivals
    if arrivals.kind in ("poisson", "gamma", "constant", "bursts", "on_off"):
        wanted = replace(arrivals, rate=load * rate)
    else:
        wanted = ArrivalsSpec(kind="poisson", rate=load * rate)
    return spec.replace(
        name=f"{spec.name}-load-{load:.3g}", workload=replace(spec.workload, arrivals=wanted, time_scale=1.0)
    )


def requests_for(spec: RunSpec, minutes: float, loads: int, *, scheduler: Any = None, most: int = 5000) -> int:
    """How many requests keep a device busy for `minutes` over that many loads, by the simulated throughput.

    Raises ConfigError if that would be fewer than 20: no percentile could be told.
    """
    trial = at_load(spec.replace(workload=replace(spec.workload, num_requests=400)), 1.0, 1.0)
    longest = spec.engine.max_model_len or load_calibration(spec.calibration).max_model_len
    workload = build_workload(trial.workload, trial.seed, longest)
    rate = saturated_rate(trial, workload, scheduler=scheduler)
    # Below saturation batches are smaller and cost more a token: a third more time, as measured on the tiny model.
    count = min(most, int(minutes * 60 / loads * rate / 1.35))
    if count < 20:
        raise ConfigError(
            f"{minutes:g} minutes are enough for {count} requests at each of {loads} loads; give more --minutes, fewer "
            "loads or shorter requests"
        )
    return count
