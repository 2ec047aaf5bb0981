"""Files as `vllm bench forward --output-json` of vLLM 0.33.0 writes them, of batches with a known price."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmsim.calibrate.importers.vllm_shapes import taken
from llmsim.calibrate.profiling.cases import Case
from llmsim.calibrate.profiling.plan import default_plan
from llmsim.costs.base import CostModel
from llmsim.costs.linear import Linear

_ALL = default_plan(max_model_len=8192, kv_tokens=600_000, max_tokens=4096, max_seqs=256, cases=60)
PLAN = replace(_ALL, cases=tuple(filter(taken, _ALL.cases)))
LINEAR = Linear(
    constant=5e-3, per_token=3e-5, per_sequence=5e-6, per_decode_context=3e-8, per_prefill_attention=8e-10
)


def forward_cases(
    model: CostModel = LINEAR, *, ranks: int = 1, block_size: int = 16, noise: float = 0.002, seed: int = 3
) -> list[dict[str, Any]]:
    """The list in the file: every case of PLAN, 5 samples of 4 replays, scattered by `noise` (relative)."""
    rng = np.random.default_rng(seed)
    return [_item(case, model, ranks, block_size, noise, rng) for case in PLAN.cases]


def _item(
    case: Case, model: CostModel, ranks: int, block_size: int, noise: float, rng: np.random.Generator
) -> dict[str, Any]:
    times = model.seconds(case.work()) * 1e6 * np.exp(noise * rng.standard_normal(20))
    median = float(np.median(times))
    latency = {
        "timer": "graph_events" if ranks == 1 else "graph_events_rank_max",
        "median": median,
        "sample_spread_pct": 0.1,
        "mean": float(times.mean()),
        "std": float(times.std()),
        "min": float(times.min()),
        "p90": float(np.percentile(times, 90)),
        "count": len(times),
        "samples_us": [round(float(time), 2) for time in times],
    }
    rank = {
        "num_tokens": case.tokens,
        "kv_blocks": 1 + case.blocks(block_size),
        "routing": "real",
        "timing_scope": "target_only",
        "graph_vs_eager": {"max_abs": 0.0, "relative_rms": float("nan")},
        "graph_deterministic": True,
        "finite": True,
        "latency_us": latency,
    }
    requests = [
        {"query_len": one.queries, "kv_len": one.keys, "num_draft_tokens": 0, "chunked": one.chunked}
        for one in case.sequences
    ]
    return {"case": case.name, "requests": requests, "median_us": median, "ranks": [rank] * ranks}


def write_forward(path: Path, cases: object) -> Path:
    """The file at `path`, NaN and all, as json.dump writes it."""
    path.write_text(json.dumps(cases, indent=2), encoding="utf-8")
    return path
