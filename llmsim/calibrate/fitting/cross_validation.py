"""Cross-validation: which cases are held out together, and what fits to the others say about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llmsim.calibrate.fitting.candidates import Form
from llmsim.calibrate.fitting.design import Sums
from llmsim.calibrate.fitting.features import SUMS
from llmsim.calibrate.fitting.fit_result import predicted, works_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[np.float64]
    Ints = NDArray[np.int64]


def groups_of(table: pd.DataFrame) -> Ints:
    """The group of every row, (rows,): its `group` where the table has one, else rows with the same sums.

    Equal batches in training and test would show the noise of a repeat, not the error of the form.
    """
    if "group" in table.columns:
        return np.unique(table["group"], return_inverse=True)[1].astype(np.int64)
    return np.asarray(table.groupby(list(SUMS), sort=True).ngroup(), dtype=np.int64)


def deal(groups: Ints, folds: int, seed: int) -> Ints:
    """The fold of every row, (rows,): groups are shuffled by the seed and dealt out in turn."""
    count = int(groups.max()) + 1
    dealt = np.empty(count, dtype=np.int64)
    dealt[np.random.default_rng(seed).permutation(count)] = np.arange(count) % folds
    return np.asarray(dealt[groups], dtype=np.int64)


def held_out_seconds(form: Form, table: pd.DataFrame, fold_of: Ints) -> Table:
    """Seconds of every case by the form fitted to the other folds, (rows,)."""
    seconds = table["seconds"].to_numpy(dtype=np.float64)
    works = works_of(table)
    found = np.empty(len(table))
    for fold in np.unique(fold_of):
        test = fold_of == fold
        fitted = form.fit(Sums.of(table[~test]), seconds[~test])
        found[test] = predicted(fitted.batch_time, [work for work, out in zip(works, test, strict=True) if out])
    return found


def standard_error(differences: Table, groups: Ints) -> float:
    """Of the mean of `differences` (rows,), whose values are independent between groups only."""
    count = int(groups.max()) + 1
    sums = np.bincount(groups, weights=differences - differences.mean(), minlength=count)
    return float(np.sqrt(np.square(sums).sum() * count / max(count - 1, 1)) / len(differences))
