"""Tables of attention from measured batches of one layer: prompts alone, decodes alone, both in one batch.

Times of one layer in seconds come in as rows with the sums that describe the batch; tables of the `tabulated` form go
out (llmsim/costs/tabulated.py says what they mean), still of one layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from llmsim.calibrate.importers.chunks import Walk
from llmsim.calibrate.importers.rising import never_dearer, rising
from llmsim.errors import CalibrationError

COLUMNS = (
    "prefill_tokens", "prefill_seqs", "prefill_context", "prefill_attention", "decode_tokens", "decode_context",
    "seconds",
)  # fmt: skip
"""What a table of rows has: the sums of `llmsim.core.batch.Work`, and the seconds of one layer's attention."""

CONTEXTS = (1, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
"""Columns of the decode tables, tokens of mean context; those beyond what was measured are left out."""


FULL_CARD = 2048
"""Prompt tokens from which batches say what a query-key pair costs when the card is full."""
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


def fit_attention(rows: pd.DataFrame, walk: Walk | None = None) -> AttentionTables:
    """The tables from rows with COLUMNS; without mixed batches among them `decode_mixed` is None.

    Without `walk` the rows say what a past costs; with it they hold whole prompts, and `chunks` says it. Raises
    CalibrationError if prompts or decodes are missing.
    """
    alone = rows[rows["decode_tokens"] == 0]
    decodes = rows[rows["prefill_tokens"] == 0]
    mixed = rows[(rows["prefill_tokens"] > 0) & (rows["decode_tokens"] > 0)]
    for name, part in (("prompts", alone), ("decodes", decodes)):
        if part.empty:
            raise CalibrationError(f"the measurements hold no batch of {name} alone; both kinds are needed")
    base, per_key = _prefill(alone) if walk is None else _whole_prompts(alone, walk)
    table = rising_table(decode_table(decodes, decodes["seconds"]), by_sum=True)
    if mixed.empty:
        return AttentionTables(prefill_base=base, prefill_per_key=per_key, decode=table)
    beside, pair = _beside_prompts(mixed, base, per_key)
    return AttentionTables(
        prefill_base=base, prefill_per_key=per_key, decode=table, decode_mixed=beside, mixed_pair=pair
    )


def _prefill(rows: pd.DataFrame) -> tuple[dict[int, float], dict[int, float]]:
    """For each number of prompt tokens the line of seconds over the mean number of keys, of least relative error.

    Where a line's slope is below that of fewer tokens both are drawn together (`rising`), and so are the floors.
    """
    slopes = {tokens: _slope(group) for tokens, group in _by_tokens(rows) if group["prefill_attention"].nunique() > 1}
    if not slopes:
        raise CalibrationError("no number of prompt tokens was measured with two different contexts; two are needed")
    known = rows[rows["prefill_tokens"].isin(slopes)]
    return _on_lines(known, dict(zip(slopes, rising(np.array(list(slopes.values()))).tolist(), strict=True)))


def _by_tokens(rows: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    """Rows by prompt tokens, fewest first, with `keys`: the mean number of keys."""
    rows = rows.assign(keys=rows["prefill_attention"] / rows["prefill_tokens"])
    return [(int(tokens), group) for tokens, group in rows.groupby(rows["prefill_tokens"].astype(int))]


def _slope(group: pd.DataFrame) -> float:
    """Seconds a key, at least 0 and without a floor below 0."""
    keys, seconds = group["keys"].to_numpy(), group["seconds"].to_numpy()
    weights = 1 / seconds
    start, slope = np.linalg.lstsq(np.column_stack([weights, keys * weights]), np.ones(len(seconds)), rcond=None)[0]
    if start < 0:  # then through the origin
        slope = (keys * weights).sum() / ((keys * weights) ** 2).sum()
    return max(0.0, float(slope))


def _on_lines(rows: pd.DataFrame, per_key: dict[int, float]) -> tuple[dict[int, float], dict[int, float]]:
    """(floors, seconds a key) by prompt tokens, the floors of least relative error and rising, with given slopes."""
    floors = []
    for tokens, group in _by_tokens(rows):
        weights = 1 / group["seconds"] ** 2
        floors.append(float(((group["seconds"] - per_key[tokens] * group["keys"]) * weights).sum() / weights.sum()))
    sizes = [tokens for tokens, _ in _by_tokens(rows)]
    return dict(zip(sizes, rising(np.array(floors).clip(min=0)).tolist(), strict=True)), per_key


def _whole_prompts(rows: pd.DataFrame, walk: Walk) -> tuple[dict[int, float], dict[int, float]]:
    """As `_prefill`, from prompts without a past: all sizes have the rate a pair of batches that fill the card."""
    groups = [(tokens, group) for tokens, group in _by_tokens(rows) if group["prefill_attention"].nunique() > 1]
    rates = [_slope(group) / tokens for tokens, group in groups if tokens >= FULL_CARD]
    if not rates:
        raise CalibrationError(
            f"no number of prompt tokens from {FULL_CARD} on was measured in prompts of two lengths; two are needed to "
            "say what a query-key pair costs"
        )
    pair = float(np.median(rates))
    sizes = np.array([tokens for tokens, _ in _by_tokens(rows)])
    floors, _ = _on_lines(rows, dict(zip(sizes.tolist(), walk.per_key(sizes, pair).tolist(), strict=True)))
    floors = dict(zip(floors, never_dearer(sizes, np.array(list(floors.values()))).tolist(), strict=True))
    points = np.array(sorted({*walk.corners(pair), *sizes.tolist()}))
    return floors, dict(zip(points.tolist(), walk.per_key(points, pair).tolist(), strict=True))


def decode_table(rows: pd.DataFrame, seconds: pd.Series) -> pd.DataFrame:
    """Seconds by decodes (index) and mean context (columns): lines between what was measured, rising with both.

    Contexts longer than any measured for that many decodes go on along the line through the last ones.
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
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns).sort_index()
    return rising_table(table)


def rising_table(table: pd.DataFrame, *, by_sum: bool = False) -> pd.DataFrame:
    """Seconds by decodes and mean context, rising with both; `by_sum`: with decodes and the sum of contexts, so that a
    short decode makes no batch cheaper. That is not so where keys are not split: there the longest counts."""
    decodes, context = np.meshgrid(table.index, table.columns, indexing="ij")
    second = decodes * context if by_sum else context
    return pd.DataFrame(rising(table.to_numpy(), decodes, second), table.index, table.columns)


def above_floor(table: pd.DataFrame) -> pd.DataFrame:
    """What decodes add to a kernel that runs anyway: seconds above those of the fewest decodes and keys."""
    above: pd.DataFrame = table - table.to_numpy()[0, 0]
    return above


def _along(at: np.ndarray, values: np.ndarray, columns: list[int]) -> Iterator[float]:
    last = at >= min(at[-1] / 2, at[-2])  # where more than two lie there, the last two alone are a matter of noise
    slope = max(0.0, float(np.polyfit(at[last], values[last], 1)[0]))
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
