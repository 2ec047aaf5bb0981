"""Tables of attention from measured batches of one layer: prompts alone, decodes alone, both in one batch.

Times of one layer in seconds come in as rows with the sums that describe the batch; tables of the `tabulated` form go
out (llmsim/costs/tabulated.py says what they mean), still of one layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from llmsim.errors import CalibrationError

COLUMNS = ("prefill_tokens", "prefill_seqs", "prefill_attention", "decode_tokens", "decode_context", "seconds")
"""What a table of rows has: the sums of `llmsim.core.batch.Work`, and the seconds of one layer's attention."""

CONTEXTS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Columns of the decode tables, tokens of mean context; those beyond what was measured are left out."""


MOST_KEYS = 2048
"""Mean keys of a prompt chunk up to which batches say what decodes cost beside it: longer ones hide small decodes."""


@dataclass(frozen=True, kw_only=True)
class AttentionTables:
    """One layer's tables: points -> seconds (per key: seconds a token of mean keys); decodes x contexts -> seconds.

    `mixed_pair` is in seconds per prompt token of the mean chunk and sequence, `notes` what was found on the way.
    """

    prefill_base: dict[int, float]
    prefill_per_key: dict[int, float]
    decode: pd.DataFrame
    decode_mixed: pd.DataFrame | None = None
    mixed_pair: float = 0.0
    notes: tuple[str, ...] = field(default=())


def fit_attention(rows: pd.DataFrame) -> AttentionTables:
    """The tables from rows with COLUMNS; without mixed batches among them `decode_mixed` is None.

    Raises CalibrationError if prompts or decodes are missing.
    """
    alone = rows[rows["decode_tokens"] == 0]
    decodes = rows[rows["prefill_tokens"] == 0]
    mixed = rows[(rows["prefill_tokens"] > 0) & (rows["decode_tokens"] > 0)]
    for name, part in (("prompts", alone), ("decodes", decodes)):
        if part.empty:
            raise CalibrationError(f"the measurements hold no batch of {name} alone; both kinds are needed")
    base, per_key = _prefill(alone)
    table = decode_table(decodes, decodes["seconds"])
    if mixed.empty:
        return AttentionTables(prefill_base=base, prefill_per_key=per_key, decode=table)
    beside, pair = _beside_prompts(mixed, base, per_key)
    return AttentionTables(
        prefill_base=base, prefill_per_key=per_key, decode=table, decode_mixed=beside, mixed_pair=pair
    )


def _prefill(rows: pd.DataFrame) -> tuple[dict[int, float], dict[int, float]]:
    """For each number of prompt tokens the line of seconds over the mean number of keys, of least relative error."""
    base: dict[int, float] = {}
    per_key: dict[int, float] = {}
    for tokens in sorted(set(rows["prefill_tokens"].astype(int))):
        group = rows[rows["prefill_tokens"] == tokens]
        keys = (group["prefill_attention"] / tokens).to_numpy()
        seconds = group["seconds"].to_numpy()
        if len(set(keys)) < 2:
            continue
        weights = 1 / seconds
        design = np.column_stack([weights, keys * weights])
        start, slope = np.linalg.lstsq(design, np.ones(len(seconds)), rcond=None)[0]
        if start < 0:  # then through the origin
            start, slope = 0.0, float((keys * weights).sum() / ((keys * weights) ** 2).sum())
        if slope < 0:
            start, slope = float(1 / weights.mean()), 0.0
        base[tokens], per_key[tokens] = float(start), float(slope)
    if not base:
        raise CalibrationError("no number of prompt tokens was measured with two different contexts; two are needed")
    return base, per_key


def decode_table(rows: pd.DataFrame, seconds: pd.Series) -> pd.DataFrame:
    """Seconds by decodes (index) and mean context (columns): lines between what was measured, rising with context.

    Contexts longer than any measured for that many decodes go on as the last two do.
    """
    context = rows["decode_context"] / rows["decode_tokens"]
    longest = context.max()
    columns = [at for at in CONTEXTS if at <= longest]
    lines = {}
    frame = pd.DataFrame({"n": rows["decode_tokens"].astype(int), "at": context, "s": seconds})
    for decodes in sorted(set(frame["n"])):
        line = frame[frame["n"] == decodes].groupby("at")["s"].median()
        if len(line) >= 2:
            at, values = line.index.to_numpy(), np.maximum.accumulate(line.to_numpy())
            lines[decodes] = np.maximum.accumulate(list(_along(at, values, columns)))
    if not lines:
        raise CalibrationError("no number of decodes was measured with two different contexts; two are needed")
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).sort_index()


def _along(at: np.ndarray, values: np.ndarray, columns: list[int]) -> Iterator[float]:
    slope = (values[-1] - values[-2]) / (at[-1] - at[-2])
    for column in columns:
        if column <= at[-1]:
            yield float(np.interp(column, at, values))
        else:
            yield float(values[-1] + slope * (column - at[-1]))


def _beside_prompts(
    mixed: pd.DataFrame, base: dict[int, float], per_key: dict[int, float]
) -> tuple[pd.DataFrame, float]:
    """What decodes cost beside prompts: the time above that of the prompts, less what grows with their product.

    Every sequence of a FlashAttention batch gets as many thread blocks as the longest chunk needs; those of decodes
    end at once, but there are as many as tokens of the chunk times sequences.
    """
    tokens = mixed["prefill_tokens"]
    known = tokens.isin(base) & (mixed["prefill_attention"] <= MOST_KEYS * tokens)
    mixed, tokens = mixed[known], tokens[known]
    prompts = tokens.map(base) + tokens.map(per_key) * mixed["prefill_attention"] / tokens
    above = mixed["seconds"] - prompts
    product = tokens / mixed["prefill_seqs"] * (mixed["prefill_seqs"] + mixed["decode_tokens"])
    pair = _slope_within(above, product, [mixed["decode_tokens"], mixed["decode_context"]])
    return decode_table(mixed, (above - pair * product).clip(lower=0)), pair


def _slope_within(y: pd.Series, x: pd.Series, groups: list[pd.Series]) -> float:
    """Slope of y over x where decodes and contexts are the same: the median of the groups' slopes, at least 0.

    Groups that differ by a factor below 8 in x say little; each counts by the spread of its x.
    """
    slopes, weights = [], []
    frame = pd.DataFrame({"y": y, "x": x})
    for _, group in frame.groupby([g.loc[frame.index] for g in groups]):
        if group["x"].max() < 8 * group["x"].min():
            continue
        slopes.append(float(np.polyfit(group["x"], group["y"], 1)[0]))
        weights.append(float(group["x"].std()))
    if not slopes:
        return 0.0
    order = np.argsort(slopes)
    reached = np.cumsum(np.array(weights)[order])
    return max(0.0, float(slopes[order[int(np.searchsorted(reached, reached[-1] / 2))]]))
