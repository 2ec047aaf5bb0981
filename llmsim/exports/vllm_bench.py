"""Requests as the record that `vllm bench serve --save-result --save-detailed` writes (vLLM 0.33).

Plain in, plain out: a table of requests, the gaps between tokens, and what to say about the run; so a benchmark
client can call it as well as an export. Names, units and formulas are vLLM's: lists are in seconds, statistics in
milliseconds over answered requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.exports.vllm_stats import Answers, Record, latencies, peaks, rates
from llmsim.metrics import PERCENTILES
from llmsim.metrics.quantiles import Floats
from llmsim.metrics.timeline import Mask, ints
from llmsim.units import SECOND

DETAILS = (
    "input_lens",
    "output_lens",
    "start_times",
    "ttfts",
    "itls",
    "latencies",
    "queue_times",
    "generated_texts",
    "errors",
    "server_queue_times",
    "server_ttfts",
)
"""Keys with one entry a request."""

COLUMNS = ("arrival_ns", "first_token_ns", "finish_ns", "prompt_tokens", "generated", "status")
SLO_NAMES = ("ttft", "tpot", "e2el")
"""What vLLM's --goodput can limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSetup:
    """What a record says about the run before its numbers.

    `date` is YYYYmmdd-HHMMSS; `request_rate` requests per second, `inf` for all at once or for a trace's own times;
    `max_concurrency` None where the loop is open. `extra` are keys of one's own, as vLLM's --metadata.
    """

    label: str
    backend: str
    model_id: str = ""
    tokenizer_id: str | None = None
    date: str = ""
    request_rate: float = math.inf
    burstiness: float = 1.0
    max_concurrency: int | None = None
    extra: Mapping[str, str | int | float] = field(default_factory=dict)


def vllm_bench_json(
    requests: pd.DataFrame,
    itls_s: Sequence[Sequence[float] | Floats],
    setup: BenchSetup,
    *,
    duration_s: float | None = None,
    slo_ms: Mapping[str, float] | None = None,
    percentiles: Sequence[float] = PERCENTILES,
    client_queue_s: Sequence[float] | None = None,
    generated_texts: Sequence[str] | None = None,
) -> Record:
    """The record, JSON-ready and without NaN; a statistic of nothing is 0, as in vLLM.

    `requests`, one row each: `arrival_ns` (when it was sent), `first_token_ns`, `finish_ns` (-1: never),
    `prompt_tokens`, `generated`, `status` ('finished': answered). Optional: `reject_reason` (why it was not
    answered), `first_scheduled_ns` (unless all are -1: gives the server's own times), `slo_met`. `itls_s`: seconds
    between the tokens of each row. `duration_s` of the benchmark, None: from the first request sent to the last
    answer. `slo_ms`: limits on ttft, tpot, e2el for the goodput; None: `slo_met`, if any row has one.
    `client_queue_s`: seconds each request waited in the client before it was sent, None: 0.

    Raises ValueError if a column is missing, a sequence has another length than the table, a limit is unknown, or
    `duration_s` is not above 0.
    """
    _check(requests, {"itls_s": itls_s, "client_queue_s": client_queue_s, "generated_texts": generated_texts}, slo_ms)
    answers, rows = Answers.of(requests, itls_s), len(requests)
    seconds = answers.duration() if duration_s is None else duration_s
    if duration_s is not None and seconds <= 0:
        raise ValueError(f"duration_s must be above 0 but got {seconds:g}; give the benchmark's span in seconds")
    return {
        **_header(setup, rows),
        **rates(answers, seconds, _good(requests, answers, slo_ms)),
        "input_lens": answers.prompt,
        "output_lens": answers.output,
        "ttfts": answers.ttft.tolist(),
        "itls": answers.itls,
        "latencies": answers.latency.tolist(),
        "start_times": answers.start.tolist(),
        "queue_times": [0.0] * rows if client_queue_s is None else [float(wait) for wait in client_queue_s],
        "generated_texts": [""] * rows if generated_texts is None else list(generated_texts),
        "errors": _errors(requests, answers.done),
        **_server_times(requests),
        **peaks(answers),
        **latencies(answers, percentiles),
    }


def _check(
    requests: pd.DataFrame, lists: Mapping[str, Sequence[object] | None], slo_ms: Mapping[str, float] | None
) -> None:
    missing = [name for name in COLUMNS if name not in requests]
    if missing:
        raise ValueError(f"the table of requests lacks {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    for name, values in lists.items():
        if values is not None and len(values) != len(requests):
            raise ValueError(f"{name} must have one entry a request, {len(requests)}, but has {len(values)}")
    unknown = [name for name in slo_ms or () if name not in SLO_NAMES]
    if unknown:
        raise ValueError(f"slo_ms limits {', '.join(SLO_NAMES)} but got {unknown[0]!r}; leave it out")


def _header(setup: BenchSetup, rows: int) -> Record:
    return {
        "date": setup.date,
        "endpoint_type": setup.backend,
        "backend": setup.backend,
        "label": setup.label,
        "model_id": setup.model_id,
        "tokenizer_id": setup.tokenizer_id,
        "num_prompts": rows,
        **setup.extra,
        # JSON has no infinity; vLLM writes the rate, and reads both, as a word.
        "request_rate": "inf" if setup.request_rate == math.inf else setup.request_rate,
        "burstiness": "inf" if setup.burstiness == math.inf else setup.burstiness,
        "max_concurrency": setup.max_concurrency,
    }


def _good(requests: pd.DataFrame, answers: Answers, slo_ms: Mapping[str, float] | None) -> int | None:
    """Answered requests within every limit; None without limits."""
    if slo_ms:
        return answers.within(slo_ms)
    if "slo_met" in requests and requests["slo_met"].notna().any():
        met = requests["slo_met"].astype("boolean").fillna(False).to_numpy(dtype=bool)
        return int((met & answers.done).sum())
    return None


def _errors(requests: pd.DataFrame, done: Mask) -> list[str]:
    """'' for an answered request, else its status and, where known, the reason."""
    status = requests["status"].astype(str).tolist()
    reasons = requests["reject_reason"].astype(str).tolist() if "reject_reason" in requests else [""] * len(status)
    texts = [f"{what}: {why}" if why else what for what, why in zip(status, reasons, strict=True)]
    return ["" if answered else text for answered, text in zip(done.tolist(), texts, strict=True)]


def _server_times(requests: pd.DataFrame) -> Record:
    """Seconds as the server counts them, None where it never came to that; nothing if the table does not know."""
    if "first_scheduled_ns" not in requests or (requests["first_scheduled_ns"] == NEVER).all():
        return {}
    arrival, record = ints(requests, "arrival_ns"), {}
    for key, column in (("server_queue_times", "first_scheduled_ns"), ("server_ttfts", "first_token_ns")):
        at = ints(requests, column)
        elapsed: list[float] = ((at - arrival) / SECOND).tolist()
        never: list[bool] = np.equal(at, NEVER).tolist()
        record[key] = [None if none else value for none, value in zip(never, elapsed, strict=True)]
    return record
