"""Measured times made to rise with what a kernel has to do, and seconds a token to fall with their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rising(values: Floats, *sizes: Floats) -> Floats:
    """The values, none below another whose sizes are all smaller or equal; unchanged where that holds already.

    `sizes` have the shape of `values`; without any the values are a row in rising order. Where a measured time is above
    a later one either may be the disturbed one, so both become the mean of the least values that rise and lie above all
    of them and the greatest that rise and lie below.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    keys = [np.asarray(size, dtype=np.float64).ravel() for size in sizes or (np.arange(flat.size),)]
    smaller = np.all([key[:, None] <= key[None, :] for key in keys], axis=0)
    above = np.where(smaller, flat[:, None], -np.inf).max(axis=0)
    below = np.where(smaller.T, flat[:, None], np.inf).min(axis=0)
    return np.asarray((above + below) / 2, dtype=np.float64).reshape(np.shape(values))


def never_dearer(tokens: Floats, seconds: Floats) -> Floats:
    """Seconds by tokens, rising, with seconds a token that do not: a batch costs no more than its halves one by one."""
    return -rising(-rising(seconds) / tokens) * tokens
