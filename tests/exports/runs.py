"""Small runs to export: two replicas that run out of KV, so that requests queue and are preempted."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from llmsim.exports import token_gaps_s
from llmsim.runs.results import Result
from llmsim.runs.simulation import simulate
from llmsim.spec.run_spec import load_runs
from llmsim.units import SECOND

UNIFORM = {"kind": "uniform", "low": 20, "high": 900}


def made(scheduler: str = "vllm_v1", **changes: Any) -> Result:
    """A run of 60 requests; `changes` lay over its description."""
    mapping = {
        "name": "small",
        "workload": {
            "lengths": {"kind": "synthetic", "prompt": UNIFORM, "output": {"kind": "uniform", "low": 1, "high": 150}},
            "arrivals": {"kind": "poisson", "rate": 6.0},
            "num_requests": 60,
        },
        "calibration": "rtx-6000-ada/mistral-7b",
        "cluster": {"replicas": 2},
        "engine": {"num_blocks": 150},
        "scheduler": scheduler,
        "slo": ["ttft:800", "tpot:60"],
        "seed": 3,
    }
    return simulate(load_runs(mapping=mapping | changes)[0])


@cache
def small(scheduler: str = "vllm_v1") -> Result:
    """The same run every time; do not write to its tables."""
    return made(scheduler)


def with_one_rejected() -> Result:
    """The small run as if its request 5 had been too long."""
    result = small()
    requests = result.requests.copy()
    requests.loc[5, ["first_scheduled_ns", "prefill_end_ns", "first_token_ns", "finish_ns"]] = -1
    requests.loc[5, ["generated", "chunks", "preemptions", "prompt_completions"]] = 0
    requests.loc[5, "status"] = "rejected"
    requests.loc[5, "reject_reason"] = "prompt_tokens=9000 is more than max_model_len=8192"
    requests.loc[5, "slo_met"] = False
    ranges = result.token_ranges[result.token_ranges["id"] != 5].reset_index(drop=True)
    return replace(result, requests=requests, token_ranges=ranges)


def measured() -> Result:
    """The small run as a client would have seen it: token by token, without the server's batches."""
    simulated = small()
    gaps = token_gaps_s(simulated.requests, simulated.timeline)
    firsts = simulated.requests["first_token_ns"].tolist()
    times = [first + np.rint(np.cumsum([0.0, *each]) * SECOND) for first, each in zip(firsts, gaps, strict=True)]
    ids = np.repeat(simulated.requests["id"].to_numpy(), [len(each) for each in times])
    unknown = ["preemptions", "chunks", "prompt_completions"]
    requests = simulated.requests.drop(columns=unknown).assign(first_scheduled_ns=-1, prefill_end_ns=-1)
    return replace(
        simulated,
        requests=requests.assign(replica=0, planned_ns=requests["arrival_ns"] - 10**6),
        iterations=simulated.iterations.iloc[:0],
        token_ranges=simulated.token_ranges.iloc[:0],
        token_times=pd.DataFrame({"id": ids, "time_ns": np.concatenate(times).astype(np.int64)}),
        summary=simulated.summary | {"client": {"model": "some/model"}},
    )
