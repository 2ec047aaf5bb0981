"""Latencies of each request: vLLM's names and formulas, or the papers' by a named switch.

========  ============================================================================================
ttft      first token - arrival; under 'slai': last completion of the prompt - arrival
tpot      (e2el - (first token - arrival)) / (n - 1), none for n = 1; the same under both definitions
itl       every gap between two tokens of a request, pooled (papers call it TBT); 'slai' as papers.py says
e2el      last token - arrival
queue     first scheduled - arrival
========  ============================================================================================
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.errors import ConfigError, did_you_mean
from llmsim.metrics.papers import tbt_samples
from llmsim.metrics.quantiles import Floats, Ints
from llmsim.metrics.timeline import Mask, Timeline, ints, longest_gaps, pooled_gaps
from llmsim.units import SECOND

Definitions = Literal["vllm", "slai"]


def check_definitions(definitions: str) -> None:
    """Raise ConfigError unless `definitions` is a known set of metric definitions."""
    known = get_args(Definitions)
    if definitions not in known:
        hint = did_you_mean(definitions, known)
        raise ConfigError(f"metric definitions {definitions!r} are not known.{hint}")


def elapsed_ns(requests: pd.DataFrame, until: str) -> Floats:
    """Nanoseconds from arrival to the time in column `until` (rows,), NaN where it never came.

    Float64 holds these exactly: simulated spans stay below 2**53 ns, 104 days.
    """
    at = ints(requests, until)
    return np.where(at == NEVER, np.nan, (at - ints(requests, "arrival_ns")).astype(np.float64))


def ttft_ns(requests: pd.DataFrame, definitions: Definitions = "vllm") -> Floats:
    """Time to first token (rows,), ns; NaN where there was none (slai: the prompt never completed)."""
    check_definitions(definitions)
    return elapsed_ns(requests, "prefill_end_ns" if definitions == "slai" else "first_token_ns")


def tpot_ns(requests: pd.DataFrame) -> Floats:
    """Mean time per output token after the first (rows,), ns; NaN unless finished with two or more tokens."""
    decoding = elapsed_ns(requests, "finish_ns") - elapsed_ns(requests, "first_token_ns")
    steps = ints(requests, "generated") - 1
    return np.where(steps > 0, decoding / np.maximum(steps, 1), np.nan)


def ttft_s(requests: pd.DataFrame, definitions: Definitions = "vllm") -> Floats:
    """Time to first token (rows,), seconds, NaN for none."""
    return ttft_ns(requests, definitions) / SECOND


def tpot_s(requests: pd.DataFrame) -> Floats:
    """Time per output token after the first (rows,), seconds, NaN for none."""
    return tpot_ns(requests) / SECOND


def e2el_s(requests: pd.DataFrame) -> Floats:
    """End-to-end latency (rows,), seconds, NaN for unfinished requests."""
    return elapsed_ns(requests, "finish_ns") / SECOND


def queue_s(requests: pd.DataFrame) -> Floats:
    """Wait from arrival to the first batch (rows,), seconds, NaN for requests never scheduled."""
    return elapsed_ns(requests, "first_scheduled_ns") / SECOND


def max_itl_s(requests: pd.DataFrame, iterations: pd.DataFrame, token_ranges: pd.DataFrame) -> Floats:
    """Longest gap between two tokens of each request (rows,), seconds, NaN with fewer than two tokens."""
    return seconds_or_nan(longest_gaps(Timeline.of(requests, iterations, token_ranges)))


def seconds_or_nan(ns: Ints) -> Floats:
    """Seconds, NaN where `ns` is NEVER."""
    return np.where(ns == NEVER, np.nan, ns / SECOND)


def itl_samples(
    requests: pd.DataFrame,
    timeline: Timeline,
    keep: Mask,
    definitions: Definitions = "vllm",
    first_token_at_prefill_end: bool | None = None,
) -> tuple[Ints, Ints]:
    """Pooled inter-token gaps as (gap_ns, weight).

    `keep` (requests,) are the requests of the measurement. vllm: the gaps of the finished ones among them;
    slai: the samples of all of them, zeros and stale repeats included (papers.py).
    """
    check_definitions(definitions)
    if definitions == "slai":
        return tbt_samples(requests, timeline, keep, first_token_at_prefill_end)
    finished = (requests["status"] == "finished").to_numpy(dtype=bool)
    return pooled_gaps(timeline.of_requests(keep & finished))
