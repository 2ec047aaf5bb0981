"""Values of a summary as JSON has them: Python numbers, rounded, and None where there is no number."""

from __future__ import annotations

import numpy as np

DECIMALS = 9
"""Numbers are rounded to this many decimals: finer than any measurement, coarser than a float sum's noise."""


def json_value(value: object) -> object:
    """Python numbers rounded to DECIMALS, None for NaN, in the same order. TypeError for what is no plain value."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return round(float(value), DECIMALS) if np.isfinite(value) else None
    raise TypeError(f"a summary holds plain values but got {type(value).__name__}")
