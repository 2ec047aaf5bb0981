"""Service classes that a trace carries in its own columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmsim.request import NO_SLO, SloClass
from llmsim.traces.schema import SLO_COLUMNS

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
    if not any(column in requests.columns for column in SLO_COLUMNS):
        return np.zeros(len(row), dtype=np.int64), (NO_SLO,)
    columns = [_column(requests, name, row) for name in SLO_COLUMNS]
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
        )
        for name, tbt_s, ttft_s, ttlt_s, tier, priority in known
    )
    return np.asarray(index, dtype=np.int64), classes


def _column(requests: pd.DataFrame, name: str, row: NDArray[np.int64]) -> Sequence[Any]:
    """Values of one column at the chosen rows, None where there is none."""
    if name not in requests.columns:
        return [_ABSENT.get(name)] * len(row)
    values = requests[name].iloc[row]
    return values.astype(object).where(values.notna(), _ABSENT.get(name)).tolist()
