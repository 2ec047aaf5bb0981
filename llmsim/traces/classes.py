"""Service classes, and models asked for, that a trace carries in its own columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmsim.core.request import NO_SLO, SloClass
from llmsim.traces.schema import CLASS_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

_ABSENT: dict[str, Any] = {"slo_class": NO_SLO.name, "priority": False}
"""Values of columns that a trace does not have; None for the others."""


def row_classes(
    requests: pd.DataFrame, row: NDArray[np.int64], known: dict[tuple[Any, ...], int] | None = None
) -> tuple[NDArray[np.int64], tuple[SloClass, ...]]:
    """Class index of the chosen rows, shape (rows chosen,), and the distinct classes as they appear.

    `known` holds the classes of blocks before this one of the same file, and takes up the new ones.
    """
    if not any(column in requests.columns for column in CLASS_COLUMNS):
        return np.zeros(len(row), dtype=np.int64), (NO_SLO,)
    columns = [_column(requests, name, row) for name in CLASS_COLUMNS]
    known = {} if known is None else known
    index = [known.setdefault(values, len(known)) for values in zip(*columns, strict=True)]
    classes = tuple(
        SloClass(
            name=name or NO_SLO.name,
            tbt_s=tbt_s,
            ttft_s=ttft_s,
            ttlt_s=ttlt_s,
            tier=None if tier is None else int(tier),
            priority=bool(priority),
            model=model or None,
        )
        for name, tbt_s, ttft_s, ttlt_s, tier, priority, model in known
    )
    return np.asarray(index, dtype=np.int64), classes


def with_row_models(
    index: NDArray[np.int64],
    classes: tuple[SloClass, ...],
    requests: pd.DataFrame,
    row: NDArray[np.int64],
    known: dict[tuple[int, Any], int] | None = None,
) -> tuple[NDArray[np.int64], tuple[SloClass, ...]]:
    """The same classes by request, but those without a model ask for what the `model` column of their row says.

    `known` as in `row_classes`.
    """
    if "model" not in requests.columns:
        return index, classes
    known = {} if known is None else known
    rows = zip(index.tolist(), _column(requests, "model", row), strict=True)
    renumbered = [known.setdefault((at, classes[at].model or model or None), len(known)) for at, model in rows]
    return np.asarray(renumbered, dtype=np.int64), tuple(replace(classes[at], model=model) for at, model in known)


def _column(requests: pd.DataFrame, name: str, row: NDArray[np.int64]) -> Sequence[Any]:
    """Values of one column at the chosen rows, None where there is none."""
    if name not in requests.columns:
        return [_ABSENT.get(name)] * len(row)
    values = requests[name].iloc[row]
    return values.astype(object).where(values.notna(), _ABSENT.get(name)).tolist()
