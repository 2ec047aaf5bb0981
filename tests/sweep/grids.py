"""A grid of small runs for the tests, as a mapping and as files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

GRID: dict[str, Any] = {
    "name": "small",
    "base": {
        "calibration": "rtx-6000-ada/mistral-7b",
        "workload": {"trace": "sharegpt4", "num_requests": 30, "arrivals": {"kind": "poisson", "rate": 1.0}},
        "slo": ["ttft:500"],
    },
    "grid": {"workload.arrivals.rate": [1, 2.5], "scheduler": ["vllm_v1", "sarathi,chunk_size=256"]},
    "seeds": 3,
    "reference": {"scheduler": "vllm_v1"},
}


def grid(**changes: Any) -> dict[str, Any]:
    """GRID with other top-level keys; None leaves a key out."""
    mapping = copy.deepcopy(GRID) | changes
    return {key: value for key, value in mapping.items() if value is not None}


def grid_file(folder: Path, file: str = "grid.yaml", /, **changes: Any) -> Path:
    """The grid as a file."""
    path = folder / file
    path.write_text(yaml.safe_dump(grid(**changes), sort_keys=False))
    return path


def trace_file(path: Path, rows: int = 40, prompt: int = 100) -> Path:
    """A trace of that many requests, one a second."""
    lines = [f"{at},{prompt + at},{20 + at}" for at in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["arrived_at,num_prefill_tokens,num_decode_tokens", *lines]) + "\n")
    return path
