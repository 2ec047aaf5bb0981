"""KernelTimes -> the `tabulated` batch time of a whole model, with its errors on what was measured.

What importers have in common: they bring the times of one card's kernels, here they become a model of iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from llmsim.calibrate.importers.attention import COLUMNS, AttentionTables, above_floor, fit_attention, rising_table
from llmsim.calibrate.importers.chunks import Walk
from llmsim.calibrate.importers.engines import Engine
from llmsim.calibrate.importers.rising import rising
from llmsim.core.batch import Work
from llmsim.costs.forms import BatchTime, Coefficient
from llmsim.costs.kernel_tables import KernelTables, Table
from llmsim.costs.records import ErrorFigures

FOLDS = 5
FAR = 1 << 20
"""Tokens of mean context: the last column of the decode tables, beyond all that was measured."""
DIGITS = 5
"""Significant digits of table values: measured times are not better than that."""


@dataclass(frozen=True, kw_only=True)
class KernelTimes:
    """Seconds on one card: `tokens` (whole model, all-reduces included) and `sequences` by count; `attention` rows of
    one of `layers` layers; `tails` by decodes (alone, beside prompts): seconds a token above the mean, one layer.

    `waves`: see `decodes_per_wave`. `gaps`: seconds between kernels of an iteration in a CUDA graph and outside.
    `sources`: of "tokens", "sequences", "attention" and "tails".
    """

    layers: int
    tokens: pd.Series
    sequences: pd.Series
    attention: pd.DataFrame
    tails: tuple[pd.Series, pd.Series]
    waves: tuple[float, float]
    gaps: tuple[float, float]
    engine: Engine
    sources: dict[str, str]
    mixed_ratio: pd.Series | None = None
    """Where no batch of decodes beside prompts was measured: their time over that of decodes alone above the floor."""
    mixed_pair: float = 0.0
    """With `mixed_ratio`: as in AttentionTables."""
    walk: Walk | None = None
    """Where prompts were measured without a past only: what one costs (`chunks`)."""


def batch_time(times: KernelTimes, tables: AttentionTables | None = None) -> BatchTime:
    """The tabulated batch time of the whole model."""
    layer = tables or fit_attention(times.attention, times.walk)
    said = times.sources["attention"]
    parts = [
        _curve("tokens", _extended(times.tokens), times.sources["tokens"]),
        _curve("sequences", _extended(times.sequences), times.sources["sequences"]),
        _curve("prefill_base", _extended(pd.Series(layer.prefill_base) * times.layers), said),
        _curve("prefill_per_key", _extended(pd.Series(layer.prefill_per_key) * times.layers), said),
        _surface("decode", layer.decode * times.layers, said),
    ]
    mixed = layer.decode_mixed
    if mixed is None and times.mixed_ratio is not None:
        ratio = np.interp(layer.decode.index, times.mixed_ratio.index, times.mixed_ratio)
        least = layer.decode - min(layer.prefill_base.values())  # with the prompt's floor no less than alone
        mixed = rising_table(above_floor(layer.decode).mul(ratio, axis=0).clip(lower=least))
        said += ". " + times.sources["mixed_ratio"]
    if mixed is not None:
        parts.append(_surface("decode_mixed", mixed * times.layers, said))
    for name, tail in zip(("decode_tail", "decode_mixed_tail"), times.tails, strict=True):
        if not tail.empty:
            parts.append(_curve(name, tail * times.layers, times.sources["tails"]))
    gaps = zip(("graph_gaps", "launch_gaps"), times.gaps, strict=True)
    coefficients = [Coefficient(name, _rounded(gap), "s", times.engine.source) for name, gap in gaps if gap]
    pair = layer.mixed_pair or times.mixed_pair
    if pair:
        pair = _rounded(pair * times.layers)
        coefficients.append(Coefficient("mixed_pair", pair, "s/token/sequence", said))
    alone, beside = times.waves
    kernels = KernelTables(
        tables=tuple(parts),
        padding=times.engine.capture_sizes,
        decodes_per_wave=(_rounded(alone), _rounded(beside)),
    )
    return BatchTime(form="tabulated", coefficients=tuple(coefficients), kernels=kernels)


def errors(times: KernelTimes, seed: int = 0) -> tuple[ErrorFigures, ErrorFigures]:
    """(in sample, held out) errors of whole iterations with each measured attention batch in every layer.

    Held out: each fifth of the attention batches, and of the token counts, is predicted from the other four.
    """
    rows = times.attention
    measured = rows["seconds"].to_numpy() * times.layers + _without_attention(times, rows)
    whole = _figures(_predicted(times, rows), measured)
    rng = np.random.default_rng(seed)
    fold = rng.integers(0, FOLDS, len(rows))
    knot = rng.integers(0, FOLDS, len(times.tokens))
    knot[[0, -1]] = -1  # the ends are always known: what lies beyond them is extrapolation
    parts, reference = [], []
    for i in range(FOLDS):
        kept = replace(times, attention=rows[fold != i], tokens=times.tokens[knot != i])
        parts.append(_predicted(kept, rows[fold == i]))
        reference.append(measured[fold == i])
    return whole, _figures(np.concatenate(parts), np.concatenate(reference))


def _works(rows: pd.DataFrame) -> list[Work]:
    columns = [rows[name].astype(int).tolist() for name in COLUMNS[:-1]]
    return [Work(*sums) for sums in zip(*columns, strict=True)]


def _predicted(times: KernelTimes, rows: pd.DataFrame) -> np.ndarray:
    model = batch_time(times).cost_model()
    return np.array([model.seconds(work) for work in _works(rows)])


def _without_attention(times: KernelTimes, rows: pd.DataFrame) -> np.ndarray:
    """Seconds of everything but attention, for each row, with all that was measured."""
    tables = batch_time(times)
    kernels = tables.kernels
    assert kernels is not None
    rest = tuple(table for table in kernels.tables if table.name in ("tokens", "sequences"))
    kept = tuple(item for item in tables.coefficients if item.name != "mixed_pair")
    model = replace(tables, kernels=replace(kernels, tables=rest), coefficients=kept).cost_model()
    return np.array([model.seconds(work) for work in _works(rows)])


def _figures(predicted: np.ndarray, measured: np.ndarray) -> ErrorFigures:
    relative = np.abs(predicted / measured - 1) * 100
    return ErrorFigures(
        cases=len(measured),
        mape_pct=round(float(relative.mean()), 2),
        p95_pct=round(float(np.percentile(relative, 95)), 2),
        max_pct=round(float(relative.max()), 2),
    )


def _extended(curve: pd.Series) -> pd.Series:
    """The curve with a point at twice its last argument, on the line through its upper half: the last two points alone
    would make extrapolation a matter of noise. Twice as much costs no more than twice."""
    last = int(curve.index[-1])
    upper = curve[curve.index >= last / 2]
    slope = max(0.0, float(np.polyfit(upper.index, upper, 1)[0])) if len(upper) > 1 else 0.0
    slope = min(slope, float(curve.iloc[-1]) / last)
    beyond: pd.Series = pd.concat([curve, pd.Series({2 * last: float(curve.iloc[-1]) + slope * last})])
    return beyond


def _curve(name: str, curve: pd.Series, source: str) -> Table:
    values = tuple(_rounded(value) for value in rising(curve.to_numpy()))
    return Table(name=name, at=tuple(int(at) for at in curve.index), values=values, source=source)


def _surface(name: str, table: pd.DataFrame, source: str) -> Table:
    last = int(table.columns[-1])
    if last < FAR:  # each row goes on as it does between its last columns, but rising with the rows
        slope = (table.iloc[:, -1] - table.iloc[:, -2]) / (last - int(table.columns[-2]))
        far = pd.Series(rising((table.iloc[:, -1] + slope * (FAR - last)).to_numpy()), table.index, name=FAR)
        table = pd.concat([table, far], axis=1)
    values = tuple(tuple(_rounded(value) for value in row) for row in table.to_numpy())
    at, context = (tuple(int(point) for point in points) for points in (table.index, table.columns))
    return Table(name=name, at=at, values=values, source=source, context=context)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
