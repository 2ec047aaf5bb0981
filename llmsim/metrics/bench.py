"""A run as a record of `vllm bench serve --save-result`, for the tools that read those."""

from __future__ import annotations

from collections.abc import Mapping

from llmsim.metrics.summary import Summary

METRICS = ("ttft", "tpot", "itl", "e2el")
_COPIED = (
    "total_input_tokens",
    "total_output_tokens",
    "request_throughput",
    "request_goodput",
    "output_throughput",
    "total_token_throughput",
)


def bench_record(
    summary: Mapping[str, object],
    *,
    label: str,
    model_id: str = "",
    tokenizer_id: str | None = None,
    date: str = "",
    request_rate: float | str = "inf",
    burstiness: float = 1.0,
    max_concurrency: int | None = None,
    backend: str = "llmsim",
) -> Summary:
    """One record with vLLM's keys; vLLM's `summary.json` is a list of these.

    `date` is the caller's (vLLM writes YYYYmmdd-HHMMSS): a summary holds none, so that it is reproducible.
    `failed` counts every request that was not answered, as vLLM does. `request_rate` is req/s or 'inf'.
    """
    sent, completed = summary["sent"], summary["completed"]
    assert isinstance(sent, int)
    assert isinstance(completed, int)
    record: Summary = {
        "date": date,
        "endpoint_type": backend,
        "backend": backend,
        "label": label,
        "model_id": model_id,
        "tokenizer_id": model_id if tokenizer_id is None else tokenizer_id,
        "num_prompts": sent,
        "request_rate": "inf" if request_rate == float("inf") else request_rate,
        "burstiness": burstiness,
        "max_concurrency": max_concurrency,
        "duration": summary["duration_s"],
        "completed": completed,
        "failed": sent - completed,
    }
    record |= {key: summary[key] for key in _COPIED}
    suffixes = tuple(f"_{name}_ms" for name in METRICS)
    return record | {key: value for key, value in summary.items() if key.endswith(suffixes)}
