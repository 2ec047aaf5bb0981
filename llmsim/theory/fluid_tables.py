"""Straight lines that the prices of a `tabulated` batch time never fall below: what the fluid bound is made of.

    price >= c + a line of the lower hull of tokens(n) + least sequences(s) + x * decode context + y * query-key pairs

x is the least of seconds a context token over both decode tables, y that of seconds a pair over the prefill tables.
What is left out (prompts' floors, waiting for the longest, decodes times prompt tokens) is never negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from llmsim.costs.curves import Curve
from llmsim.costs.kernel_tables import KernelTables, Table

SAFE = 0.999
"""Tables are read in whole femtoseconds, a pair as well: a share that rounding cannot eat up."""
FAR = 10**9
"""Tokens beyond all batches: tables go on along straight lines, so what holds here holds before."""
SMALL_CONTEXT = 1
"""Below the first context of a table its first line goes on: the shortest context is checked, too."""


class Floor(NamedTuple):
    """`lines`: (constant, seconds a token); the greatest of them counts. Seconds a context token and a pair on top."""

    lines: tuple[tuple[float, float], ...]
    per_decode_context: float
    per_pair: float


def floor_of(kernels: KernelTables, constant: float) -> Floor:
    """The lines of these tables; `constant` seconds are paid by every iteration."""
    tables = {table.name: table for table in kernels.tables}
    tokens = tables["tokens"]
    at, least = [*tokens.at, FAR], [*tokens.values, Curve(tokens.at, tokens.values).seconds(FAR)]
    for i in range(len(least) - 2, -1, -1):  # a padded batch runs at a later point
        least[i] = min(least[i], least[i + 1])
    if "sequences" in tables:
        constant += min(tables["sequences"].values)
    lines = tuple((SAFE * (start + constant), SAFE * slope) for start, slope in lower_hull(at, least))
    decodes = [_context_rate(tables[name]) for name in ("decode", "decode_mixed") if name in tables]
    pairs = tables.get("prefill_per_key")
    per_pair = 0.0
    if pairs is not None:
        far = Curve(pairs.at, pairs.values).seconds(FAR)
        per_pair = min(v / n for n, v in zip([*pairs.at, FAR], [*pairs.values, far], strict=True))
    return Floor(lines, SAFE * min(decodes, default=0.0), SAFE * per_pair)


def lower_hull(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
    """Lines (value at 0, slope >= 0) of the greatest convex function below the points, x rising, y not falling."""
    hull: list[tuple[float, float]] = []
    for point in zip(x, y, strict=True):
        while len(hull) > 1 and _slope(hull[-2], point) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    slopes = [max(0.0, _slope(a, b)) for a, b in pairwise(hull)] or [0.0]
    starts = hull[: len(slopes)]
    return [(b - slope * a, slope) for (a, b), slope in zip(starts, slopes, strict=True)]


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])


def _context_rate(table: Table) -> float:
    """The least of seconds over decodes x context: at the points, between which both are bilinear, and beyond."""
    rates = []
    for n, row in zip(table.at, table.values, strict=True):
        rates += [value / (n * context) for context, value in zip(table.context, row, strict=True)]
        rates.append(max(0.0, (row[-1] - row[-2]) / (table.context[-1] - table.context[-2])) / n)
        first = row[0] - (row[1] - row[0]) / (table.context[1] - table.context[0]) * (table.context[0] - SMALL_CONTEXT)
        rates.append(first / (n * SMALL_CONTEXT))
    if len(table.at) > 1:  # beyond the last number of decodes the last two go on, column by column
        n, more = table.at[-2], table.at[-1]
        growth = [(b - a) / (more - n) for a, b in zip(table.values[-2], table.values[-1], strict=True)]
        rates += [max(0.0, rise) / context for rise, context in zip(growth, table.context, strict=True)]
    return max(0.0, float(min(rates)))
