"""Clusters for compare_summaries.py: cards, models, engines with ample or tight KV, groups and their schedules."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

from summary_policies import ROUTERS, SCHEDULERS, draw_policy

MODELS: dict[str, tuple[str, ...]] = {
    "llama-3.1-8b": (
        "a100/llama-3.1-8b",
        "h100/llama-3.1-8b",
        "h100/llama-3.1-8b-tp2",
        "h200/llama-3.1-8b",
        "l40s/llama-3.1-8b",
        "rtx-4090/llama-3.1-8b",
        "rtx-pro-6000/llama-3.1-8b",
    ),
    "mistral-7b": ("rtx-6000-ada/mistral-7b", "l40s/mistral-7b", "h100/mistral-7b", "a100/mistral-7b-tp2"),
    "qwen3-32b": ("h200/qwen3-32b", "h100/qwen3-32b-tp2", "a100/qwen3-32b-tp4", "l40s/qwen3-32b-tp4"),
    "llama-3-8b": ("a100/llama-3-8b", "linear.json", "hinge.json", "tiled.json"),
    "llama-3.1-70b": ("h100/llama-3.1-70b-tp4", "a100/llama-3.1-70b-tp8"),
    "tiny": ("amd-epyc/tiny",),
}
"""Calibrations of every form by the model they serve; names that end in .json are files of `write_calibrations`."""

SHAPES = ("one", "equal", "unlike", "scheduled", "one", "models", "equal", "unlike", "scheduled unlike", "models")
SHORTEST_LIMIT = 1024
"""Tokens of the smallest `max_model_len` that is drawn."""


def draw_cluster(rng: Random, shape: str, scheduler: str, router: str, span_s: float) -> dict[str, Any]:
    """The keys calibration, scheduler, engine and cluster of a run whose arrivals last about `span_s` seconds.

    Of shape "one" it is one replica, and `router` is not asked for.
    """
    model = rng.choice(list(MODELS))
    semantics = _semantics(rng)
    run: dict[str, Any] = {
        "calibration": rng.choice(MODELS[model]),
        "scheduler": draw_policy(rng, scheduler, SCHEDULERS),
        "engine": semantics | draw_engine(rng, scheduler),
    }
    cluster: dict[str, Any] = {}
    if shape != "one":
        cluster["router"] = draw_policy(rng, router, ROUTERS)
    if shape == "equal":
        cluster["replicas"] = rng.randint(2, 4)
    if shape == "models":
        cluster["groups"] = _of_models(rng, semantics)
    elif shape not in ("one", "equal"):
        cluster["groups"] = _of_cards(rng, model, semantics, unlike="unlike" in shape)
    if "scheduled" in shape:
        for group in cluster["groups"][: rng.randint(1, 2)]:
            group["schedule"] = draw_schedule(rng, span_s)
            group["replicas"] *= rng.random() < 0.7  # or none from the start: who arrives must wait
    if cluster:
        run["cluster"] = cluster
    return run


def draw_engine(rng: Random, scheduler: str) -> dict[str, Any]:
    """An engine; its KV is ample (the calibration's) or as tight as two sequences of the longest kind."""
    engine: dict[str, Any] = {}
    limit = rng.choice((SHORTEST_LIMIT, 2048, None))
    if limit is None and scheduler in ("orca", "faster_transformer"):
        limit = 2048  # they reserve the longest sequence for each request
    if limit is not None:
        engine["max_model_len"] = limit
    block_size = rng.choice((None, None, 1, 8, 16, 32, 100))
    if block_size is not None:
        engine["block_size"] = block_size
    if limit is not None and rng.random() < 0.5:
        engine["num_blocks"] = math.ceil(limit / (block_size or 16) * rng.uniform(1.4, 2.6))
    if rng.random() < 0.3:
        engine["watermark"] = rng.choice((0.0, 0.05, 0.2))
    if rng.random() < 0.3:
        engine["host_overhead_s"] = rng.choice((0.0, 0.0005, 0.003))
    if rng.random() < 0.2:
        engine["startup_lag_s"] = rng.choice((0.5, 3.0))
    if scheduler == "vllm_v1" and rng.random() < 0.6:
        engine["async_scheduling"] = rng.choice((True, True, False))
    return engine


def draw_schedule(rng: Random, span_s: float) -> list[dict[str, Any]]:
    """One to three steps within the first `span_s` seconds, each adding or draining replicas; the last leaves some."""
    times = sorted(round(span_s * rng.uniform(0.05, 0.9), 3) for _ in range(rng.randint(1, 3)))
    steps: list[dict[str, Any]] = [{"at_s": at, "replicas": rng.choice((0, 0, 1, 2, 3))} for at in dict.fromkeys(times)]
    steps[-1]["replicas"] = rng.randint(1, 3)
    for step in steps:
        if rng.random() < 0.4:
            step["startup_lag_s"] = round(span_s * rng.uniform(0.0, 0.2), 3)
    return steps


def _semantics(rng: Random) -> dict[str, Any]:
    """Engine switches that all groups share: vLLM's, which are the default, SLAI's, or a mixture of both."""
    if rng.random() < 0.6:
        return {}
    first, regenerates = rng.choice(((False, True), (False, True), (True, True), (False, False)))
    return {"first_token_at_prefill_end": first, "preempted_request_regenerates_output": regenerates}


def _of_cards(rng: Random, model: str, semantics: dict[str, Any], *, unlike: bool) -> list[dict[str, Any]]:
    """Groups that serve one model: of equal cards or, `unlike`, each with a card, engine and policy of its own."""
    if not unlike:
        return [{"replicas": rng.randint(1, 2)} for _ in range(rng.randint(1, 2))]
    cards = rng.sample(MODELS[model] * 2 if len(MODELS[model]) == 1 else MODELS[model], 2)
    return [_group(rng, card, semantics) | {"model": model} for card in cards]


def _of_models(rng: Random, semantics: dict[str, Any]) -> list[dict[str, Any]]:
    """One or two groups for each of two models."""
    served = [model for model in rng.sample(list(MODELS), 2) for _ in range(rng.randint(1, 2))]
    return [_group(rng, rng.choice(MODELS[model]), semantics) | {"model": model} for model in served]


def _group(rng: Random, calibration: str, semantics: dict[str, Any]) -> dict[str, Any]:
    """A group with a card of its own, and one of two times with policy and engine of its own."""
    group: dict[str, Any] = {"replicas": rng.randint(1, 2), "calibration": calibration}
    if rng.random() < 0.5:
        scheduler = rng.choice([name for name in SCHEDULERS if name != "hold_n"])
        group["scheduler"] = draw_policy(rng, scheduler, SCHEDULERS)
        group["engine"] = semantics | draw_engine(rng, scheduler)
    return group


def write_calibrations(folder: Path) -> None:
    """The forms that no shipped calibration of a whole iteration has: linear.json, hinge.json, tiled.json."""
    per_context = {"per_decode_context": (1.1e-7, "s/token"), "per_prefill_attention": (2.3e-9, "s/pair")}
    forms: dict[str, dict[str, tuple[float, str]]] = {
        "linear": {"constant": (6.1e-3, "s"), "per_token": (8.3e-5, "s/token"), "per_sequence": (3e-5, "s/sequence")},
        "hinge": {"floor": (0.0171, "s"), "constant": (4.7e-3, "s"), "per_token": (7.1e-5, "s/token")},
        "tiled": {"constant": (5.3e-3, "s"), "per_tile": (6.7e-3, "s/tile"), "per_token": (1.9e-6, "s/token")},
    }
    for form, own in forms.items():
        (folder / f"{form}.json").write_text(json.dumps(_calibration(form, own | per_context), indent=2))


def _calibration(form: str, coefficients: dict[str, tuple[float, str]]) -> dict[str, Any]:
    """A whole calibration file with a box that most batches lie in."""
    source = "made up"
    values = {name: {"value": v, "unit": unit, "source": source} for name, (v, unit) in coefficients.items()}
    batch_time: dict[str, Any] = {"form": form, "coefficients": values}
    if form == "tiled":
        batch_time["tile_tokens"] = 128
    return {
        "schema_version": 1,
        "device": f"made-{form}",
        "model": "llama-3-8b",
        "batch_time": batch_time,
        "box": {"source": source, "ranges": {"tokens": {"min": 1, "max": 1000}, "sequences": {"min": 1, "max": 48}}},
        "errors": {"in_sample": None, "held_out": None, "note": source},
        "host_overhead": {"seconds": 0.0007, "included_in_batch_times": False, "source": source},
        "kv": {"block_size": 16, "num_blocks": 9000, "block_bytes": 2097152, "source": source},
        "limit": {"max_model_len": 8192, "native_max_model_len": 8192, "source": source},
        "provenance": {
            "source": source,
            "date": "2026-01-01",
            "command": "none",
            "licence": "Apache-2.0",
            "notes": [],
        },
    }
