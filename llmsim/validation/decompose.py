"""Why a simulated latency differs from the measured one: batch times, host overhead, and what queues make of them.

For each request, over the measured iterations it took part in itself until the latency's end:

    batch time           sum of (modelled - measured) forward times
    host overhead        sum of (modelled - measured) host times
    queue amplification  the rest of simulated - measured: waiting for iterations of others, which were mispriced too,
                         and other batches because decisions fell at other times

The three add up to the error by construction; the first two need no second simulation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.validation.compare import PER_REQUEST, paired

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmsim.runs.results import Result
    from llmsim.validation.iterations import IterationErrors
    from llmsim.validation.record import LiveRun

CAUSES = ("batch_time", "host_overhead", "queue_amplification")
SLOWEST_PCT = 90
"""Requests at or above this percentile of the measured latency are the slowest tenth."""


def request_parts(live: LiveRun, simulated: Result, errors: IterationErrors, metric: str) -> pd.DataFrame:
    """Per request that has `metric` (ttft, tpot or e2el) in both runs: id, live, simulated and the three causes (s)."""
    both = paired(live.result.requests, simulated.requests, metric)
    own = _own_iterations(live, errors, metric)
    per = both.merge(own, left_on="id", right_index=True, how="left").fillna({"batch_time": 0.0, "host_overhead": 0.0})
    per["queue_amplification"] = per["simulated"] - per["live"] - per["batch_time"] - per["host_overhead"]
    return per


def decompose(live: LiveRun, simulated: Result, errors: IterationErrors) -> pd.DataFrame:
    """Columns metric, requests ("all", "slowest tenth"), count, live_ms, error_ms, the causes in ms, and error_pct.

    Means over the requests; the causes add up to error_ms.
    """
    rows = []
    for metric in PER_REQUEST:
        parts = request_parts(live, simulated, errors, metric)
        if parts.empty:
            continue
        slow = parts["live"] >= np.percentile(parts["live"], SLOWEST_PCT)
        rows += [_mean(metric, "all", parts), _mean(metric, "slowest tenth", parts[slow])]
    return pd.DataFrame(rows)


def _mean(metric: str, which: str, parts: pd.DataFrame) -> dict[str, object]:
    live, simulated = float(parts["live"].mean()), float(parts["simulated"].mean())
    causes = {f"{cause}_ms": float(parts[cause].mean()) * 1e3 for cause in CAUSES}
    return {
        "metric": metric,
        "requests": which,
        "count": len(parts),
        "live_ms": live * 1e3,
        "error_ms": (simulated - live) * 1e3,
        **causes,
        "error_pct": None if live == 0 else (simulated / live - 1) * 100,
    }


def _own_iterations(live: LiveRun, errors: IterationErrors, metric: str) -> pd.DataFrame:
    """Seconds of batch_time and host_overhead error in each request's own iterations, by request id."""
    table = errors.table
    delta = pd.DataFrame(
        {
            "iteration": table["iteration"],
            "batch_time": table["forward_model_s"] - table["forward_s"],
            "host_overhead": table["host_model_s"] - table["host_s"],
            "end_ns": live.result.iterations["end_ns"].to_numpy(),
        }
    )
    requests = live.result.requests.set_index("id")
    rows = live.composition[["iteration", "request"]].merge(delta, on="iteration")
    first = requests["first_token_ns"].reindex(rows["request"]).to_numpy()
    if metric == "ttft":
        rows = rows[(first != NEVER) & (rows["end_ns"].to_numpy() <= first)]
    elif metric == "tpot":
        rows = rows[(first != NEVER) & (rows["end_ns"].to_numpy() > first)]
    summed = rows.groupby("request")[["batch_time", "host_overhead"]].sum()
    if metric == "tpot":
        steps: NDArray[np.float64] = requests["generated"].reindex(summed.index).to_numpy(dtype=np.float64) - 1
        summed = summed.div(np.maximum(steps, 1), axis=0)
    return summed


def first_difference(
    live_composition: pd.DataFrame, replayed: pd.DataFrame, live: Result, replay: Result
) -> str | None:
    """Where the replay of a live run parts from it: the first batch, or a request's times; None if nowhere."""
    if not replayed.equals(live_composition):
        both = min(len(replayed), len(live_composition))
        differ = (replayed.iloc[:both].to_numpy() != live_composition.iloc[:both].to_numpy()).any(axis=1)
        at = int(differ.argmax()) if differ.any() else both
        longer = live_composition if len(live_composition) > both or differ.any() else replayed
        return f"the replay's batches part from the live run's at iteration {longer['iteration'].iloc[at]}"
    for column in ("first_scheduled_ns", "first_token_ns", "finish_ns"):
        other = np.flatnonzero(live.requests[column].to_numpy() != replay.requests[column].to_numpy())
        if len(other):
            return f"the replay's {column} differs for request {live.requests['id'].iloc[other[0]]}"
    return None
