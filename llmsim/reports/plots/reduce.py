"""Many points to few, without hiding anything: step functions over bins, and distributions at chosen shares.

A run has up to a million iterations and a figure some 1000 pixels. A bin keeps the lowest and the highest value
besides the mean, so that no spike is lost; a reduced distribution has true points only, close in share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llmsim.metrics.quantiles import Floats, Ints

TAIL_LEVELS = 200
"""Points of a reduced distribution that lie above a share of 99 %, evenly in the logarithm of what is left."""


class Steps(NamedTuple):
    """A step function of time: `value[i]` from `at_ns[i]` (ascending) until the next; zero before the first."""

    at_ns: Ints
    value: Floats


class Bins(NamedTuple):
    """A function over bins: its time-weighted mean, lowest and highest value in each, all of shape (bins,)."""

    mean: Floats
    low: Floats
    high: Floats


def total(start_ns: Ints, end_ns: Ints, value: Ints) -> Steps:
    """The sum over all stretches of what each holds from its start until its end; shapes (stretches,)."""
    at, place = np.unique(np.concatenate([start_ns, end_ns]), return_inverse=True)
    changes = np.bincount(place, weights=np.concatenate([value, -value]), minlength=len(at))
    return Steps(at, np.cumsum(changes))


def bin_edges(at_ns: Ints, bins: int) -> Ints:
    """Edges of at most `bins` bins, (bins + 1,): the given times if they are few, else evenly from first to last."""
    at = np.unique(at_ns)
    if len(at) <= bins + 1:
        return at
    edges: Ints = np.unique(np.linspace(at[0], at[-1], bins + 1).astype(np.int64))
    return edges


def over_bins(steps: Steps, edges_ns: Ints) -> Bins:
    """Mean, lowest and highest value between each two neighbours of `edges_ns` (bins + 1,), which ascend."""
    if len(edges_ns) < 2 or not len(steps.at_ns):
        nothing = np.zeros(max(len(edges_ns) - 1, 0))
        return Bins(nothing, nothing, nothing)
    before = min(int(edges_ns[0]), int(steps.at_ns[0])) - 1
    at = np.concatenate([[before], steps.at_ns])
    value = np.concatenate([[0.0], steps.value])
    first = np.searchsorted(at, edges_ns[:-1], side="right") - 1
    last = np.searchsorted(at, edges_ns[1:], side="left") - 1
    # reduceat takes from each index up to the next: every second answer is a bin, those between are thrown away.
    cuts = np.stack([first, last + 1], axis=1).ravel()
    padded = np.append(value, 0.0)  # so that last + 1 is an index
    low = np.minimum.reduceat(padded, cuts)[::2]
    high = np.maximum.reduceat(padded, cuts)[::2]
    area = np.concatenate([[0.0], np.cumsum(value[:-1] * np.diff(at))])
    mean = np.diff(np.interp(edges_ns, at, area)) / np.diff(edges_ns)
    return Bins(np.clip(mean, low, high), low, high)  # sums of 1e15 ns round: no mean beyond its bin's extremes


def distribution(values: Floats | Ints, weights: Ints, points: int = 1000) -> tuple[Floats, Floats]:
    """Distinct values (ascending) and the share of the weighted sample at or below each; empty for no sample.

    At most `points` (> 2 * TAIL_LEVELS) of them: all are true points of the distribution, the lowest and highest
    value are among them, and the curve between is nowhere off by more than 1 / (points - TAIL_LEVELS - 2).
    """
    held = weights > 0
    values, weights = values[held], weights[held]
    if not len(values):
        return np.empty(0), np.empty(0)
    order = np.argsort(values)
    ordered, cumulated = values[order], np.cumsum(weights[order])
    distinct = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    at, share = ordered[distinct].astype(np.float64), cumulated[distinct] / cumulated[-1]
    if len(at) <= points:
        return at, share
    levels = np.linspace(0, 1, points - TAIL_LEVELS - 1)
    tail = 1 - np.logspace(-2, -6, TAIL_LEVELS)
    wanted = np.searchsorted(share, np.concatenate([levels, tail]))
    keep = np.unique(np.append(np.minimum(wanted, len(at) - 1), len(at) - 1))
    return at[keep], share[keep]
