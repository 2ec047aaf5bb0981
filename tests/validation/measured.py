"""Measured runs that are made: a simulated run, or one of a World, written as a server's requests."""

from __future__ import annotations

import numpy as np
import pandas as pd


def request_rows(result, jitter_s=0.0, seed=0):
    """The requests of a run as rows of a measured file; `jitter_s`: spread of what is added to every token time."""
    table = result.requests
    random = np.random.default_rng(seed)
    first = table["first_token_ns"] + random.integers(0, round(jitter_s * 1e9) + 1, len(table))
    last = table["finish_ns"] + random.integers(0, round(jitter_s * 1e9) + 1, len(table))
    last = np.where(table["generated"] == 1, first, np.maximum(first, last))
    steps = np.maximum(table["generated"] - 1, 1)
    return pd.DataFrame(
        {
            "request_id": [f"bench-{i}" for i in table["id"]],
            "arrival_s": table["arrival_ns"] / 1e9,
            "queued_s": table["arrival_ns"] / 1e9,
            "scheduled_s": table["first_scheduled_ns"] / 1e9,
            "first_token_s": first / 1e9,
            "last_token_s": last / 1e9,
            "input_tokens": table["prompt_tokens"],
            "output_tokens": table["generated"],
            "ttft_s": (first - table["arrival_ns"]) / 1e9,
            "tpot_s": ((last - first) / 1e9 / steps).where(table["generated"] > 1),
            "e2e_s": (last - table["arrival_ns"]) / 1e9,
        }
    )


def write(rows, path):
    """The file, with whole nanoseconds."""
    rows.round(9).to_csv(path, index=False)
    return path
