"""A measurement in the files of others: a CSV of the requests, and the record of `vllm bench serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER
from llmsim.exports.vllm_bench import BenchSetup, vllm_bench_json
from llmsim.metrics.timeline import ints
from llmsim.units import SECOND, to_ns

if TYPE_CHECKING:
    from datetime import datetime

    from llmsim.client.spec import BenchSpec
    from llmsim.runs.results import Result


def requests_csv(result: Result) -> str:
    """One line a request sent, by id; seconds since the run began, empty where something never happened.

    Columns: request_id, dataset_arrival_s (when it was to be sent), arrival_s (when it was), queued_s and scheduled_s
    (empty: a client does not see them), first_token_s, last_token_s, input_tokens, output_tokens (as given), ttft_s,
    tpot_s, e2e_s, status (finished, failed, unfinished) and reason.
    """
    table = result.requests

    def seconds(column: str) -> np.ndarray:
        at = ints(table, column)
        return np.where(at == NEVER, np.nan, at / SECOND)

    lines = pd.DataFrame(
        {
            "request_id": [f"bench-{id}" for id in table["id"]],
            "dataset_arrival_s": seconds("planned_ns"),
            "arrival_s": seconds("arrival_ns"),
            "queued_s": np.nan,
            "scheduled_s": np.nan,
            "first_token_s": seconds("first_token_ns"),
            "last_token_s": seconds("finish_ns"),
            "input_tokens": table["prompt_tokens"],
            "output_tokens": table["generated"],
            "ttft_s": table["ttft_s"],
            "tpot_s": table["tpot_s"],
            "e2e_s": table["e2el_s"],
            "status": table["status"],
            "reason": table["reject_reason"],
        }
    )
    return lines.round(9).to_csv(index=False, lineterminator="\n")


def vllm_record(result: Result, spec: BenchSpec, utc: datetime) -> dict[str, Any]:
    """The record that `vllm bench serve --save-result --save-detailed` writes; `utc` is its date.

    Requests of the warm-up (`warmup_s`) are left out. Its generated texts are empty: they are not kept.
    """
    measured = ints(result.requests, "arrival_ns") >= to_ns(spec.warmup_s)
    gaps = [row for row, keep in zip(token_gaps_s(result), measured.tolist(), strict=True) if keep]
    table = result.requests[measured].reset_index(drop=True)
    arrivals, client = spec.workload.arrivals, result.summary["client"]
    drawn = arrivals.kind in ("poisson", "gamma", "constant") and arrivals.rate is not None
    burstiness: Any = "inf" if arrivals.kind == "constant" else arrivals.burstiness or 1.0  # JSON has no infinity
    setup = BenchSetup(
        label=result.label,
        backend="openai" if spec.api == "completions" else "openai-chat",
        model_id=spec.model,
        tokenizer_id=spec.model,
        date=utc.strftime("%Y%m%d-%H%M%S"),
        request_rate=float(arrivals.rate or 0) if drawn else float("inf"),
        burstiness=burstiness,
        max_concurrency=arrivals.max_concurrency,
        extra={"run_name": result.name, "seed": spec.seed, "endpoint": client["endpoint"]},
    )
    waited = (ints(table, "arrival_ns") - ints(table, "planned_ns")) / SECOND
    return vllm_bench_json(
        table.drop(columns="first_scheduled_ns"),  # so that it makes up no times of the server
        gaps,
        setup,
        duration_s=result.summary["duration_s"] or None,
        client_queue_s=np.maximum(waited, 0).tolist(),
    )


def token_gaps_s(result: Result) -> list[np.ndarray]:
    """Seconds between the token events of each request, rows as in result.requests."""
    line = result.timeline
    gaps = [np.zeros(0) for _ in range(line.requests)]
    for row, first, last in zip(line.owner.tolist(), line.first.tolist(), line.last.tolist(), strict=True):
        gaps[row] = np.diff(line.ends[first : last + 1]) / SECOND
    return gaps
