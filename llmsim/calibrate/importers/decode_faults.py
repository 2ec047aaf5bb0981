"""Faults of decode attention in kernel tables, and what is done about each: found, said, mended by rule.

**Cache.** A benchmark reads the same keys again and again: while they fit the L2 cache, times are up to half of what
a model with other layers in between sees. Rule: with b bytes of keys and values, a time below floor + b / bandwidth is
replaced by that; the floor is the time at the shortest context, the bandwidth that of the times at which at least
twice the cache is read, for the same number of decodes or the nearest that has some.

**Outliers.** A time that differs by more than a third from the line between its neighbours in context, while these
agree, is left out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

OUTLIER = 1 / 3
HEAD_BYTES = 2 * 2 * 128
"""Bytes of keys and values a token and KV head: bf16, head size 128."""


def drop_outliers(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Rows (decodes, context, seconds) without the outliers, and how many those were."""
    kept = []
    for _, group in rows.sort_values("context").groupby("decodes"):
        at, seconds = group["context"].to_numpy(dtype=float), group["seconds"].to_numpy()
        good = np.ones(len(group), dtype=bool)
        for i in range(1, len(group) - 1):
            between = np.interp(at[i], at[[i - 1, i + 1]], seconds[[i - 1, i + 1]])
            steady = seconds[i - 1] <= 1.2 * seconds[i + 1]
            good[i] = not (steady and abs(seconds[i] / between - 1) > OUTLIER and good[i - 1] and _odd(seconds, i))
        kept.append(group[good])
    clean = pd.concat(kept)
    return clean, len(rows) - len(clean)


def _odd(seconds: np.ndarray, i: int) -> bool:
    """Outside what its neighbours span by a third: a bend of the line is no outlier."""
    low, high = sorted((seconds[i - 1], seconds[i + 1]))
    return bool(seconds[i] > high * (1 + OUTLIER) or seconds[i] < low / (1 + OUTLIER))


def mend_cached(rows: pd.DataFrame, kv_heads: int, l2_bytes: int) -> tuple[pd.DataFrame, int]:
    """Rows (decodes, context, seconds) with times from the cache replaced, and how many were."""
    rows = rows.sort_values(["decodes", "context"])
    size = rows["decodes"] * rows["context"] * kv_heads * HEAD_BYTES
    rates = {}
    large = rows[size >= 2 * l2_bytes]
    for decodes in sorted(set(large["decodes"].astype(int))):
        group = large[large["decodes"] == decodes]
        at = size[group.index]
        if len(group) >= 2:
            slope = np.polyfit(at, group["seconds"], 1)[0]
            if slope > 0:
                rates[decodes] = float(slope)
    if not rates:
        return rows, 0
    known = sorted(rates)
    floors = rows.groupby("decodes")["seconds"].first()
    nearest = rows["decodes"].map(lambda n: rates[min(known, key=lambda other: abs(np.log(other / n)))])
    least = rows["decodes"].map(floors) + (size - size.groupby(rows["decodes"]).transform("first")) * nearest
    cached = (size < 2 * l2_bytes) & (rows["seconds"] < least * 0.97)
    mended = rows.assign(seconds=rows["seconds"].where(~cached, least))
    return mended, int(cached.sum())
