"""A run of llmsim as vLLM's benchmark records: one with every request, or the short ones of a sweep."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmsim.exports.token_gaps import token_gaps_s
from llmsim.exports.vllm_bench import DETAILS, BenchSetup, vllm_bench_json
from llmsim.exports.vllm_stats import Record
from llmsim.metrics.timeline import ints
from llmsim.runs.results import Result
from llmsim.units import SECOND, to_ns

RATE_DRIVEN = ("poisson", "gamma", "constant")
"""Arrivals that vLLM knows, too: a rate and a burstiness."""


def vllm_bench_of(result: Result, folder: Path | None = None) -> Record:
    """The detailed record of a run; the date is that of its directory's name, '' if there is none.

    Requests that arrived in the warm-up are left out of everything, as vLLM leaves out those of --num-warmups. Raises
    ValueError if the tables contradict each other.
    """
    requests, summary = result.requests, result.summary
    warmup_s = summary["requests"]["warmup_s"]
    measured = ints(requests, "arrival_ns") >= to_ns(warmup_s)
    gaps = token_gaps_s(requests, result.timeline)
    table = requests[measured].reset_index(drop=True)
    # A client knows when it meant to send a request; a simulation sends on time.
    late = ints(table, "arrival_ns") - ints(table, "planned_ns") if "planned_ns" in table else None
    return vllm_bench_json(
        table,
        [row for row, keep in zip(gaps, measured.tolist(), strict=True) if keep],
        setup_of(result, folder),
        duration_s=summary["duration_s"] or None,
        client_queue_s=None if late is None else (np.maximum(late, 0) / SECOND).tolist(),
    )


def sweep_records(results: Sequence[tuple[Path, Result]]) -> list[Record]:
    """One record a run without the keys that hold an entry a request: the list that `vllm bench sweep plot` reads."""
    records = (vllm_bench_of(result, folder) for folder, result in results)
    return [{key: value for key, value in record.items() if key not in DETAILS} for record in records]


def setup_of(result: Result, folder: Path | None = None) -> BenchSetup:
    """What the manifest says of the load and the model; `run_name`, `scheduler` and `seed` are keys of our own."""
    arrivals: dict[str, Any] = result.manifest.get("workload", {}).get("spec", {}).get("arrivals", {})
    rate = arrivals.get("rate") if arrivals.get("kind") in RATE_DRIVEN else None
    # Equal gaps are the limit of gamma ones.
    burstiness = {"gamma": arrivals.get("burstiness"), "constant": math.inf}.get(arrivals.get("kind", ""))
    model = result.summary.get("client", {}).get("model") or result.manifest.get("calibration", {}).get("name", "")
    extra = {"run_name": result.name, "scheduler": result.label, "seed": result.summary.get("seed", 0)}
    return BenchSetup(
        label=result.label,
        backend="llmsim" if result.token_times is None else "openai",
        model_id=str(model),
        date=_date(folder),
        request_rate=math.inf if rate is None else float(rate),
        burstiness=1.0 if burstiness is None else float(burstiness),
        max_concurrency=arrivals.get("max_concurrency"),
        extra=extra,
    )


def _date(folder: Path | None) -> str:
    """YYYYmmdd-HHMMSS (UTC) of a run directory's name."""
    found = re.match(r"(\d{8})T(\d{6})Z-", folder.resolve().name) if folder is not None else None
    return f"{found[1]}-{found[2]}" if found else ""
