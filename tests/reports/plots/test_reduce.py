"""Reduced curves: exact means and extremes in every bin, true points of every distribution, bounded in number."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from llmsim.reports.plots.reduce import TAIL_LEVELS, Steps, bin_edges, distribution, over_bins, total


def stretches(rng: np.random.Generator, replicas: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Back to back and with idle gaps, on integer times."""
    starts, ends = [], []
    for _ in range(replicas):
        lasting, idle = rng.integers(1, 9, count), rng.integers(0, 5, count) * rng.integers(0, 2, count)
        end = np.cumsum(lasting + idle)
        starts.append(end - lasting)
        ends.append(end)
    return np.concatenate(starts), np.concatenate(ends), rng.integers(0, 50, replicas * count)


def sampled(start: np.ndarray, end: np.ndarray, value: np.ndarray, until: int) -> np.ndarray:
    """The sum at every unit of time, the slow way."""
    held = np.zeros(until)
    for a, b, v in zip(start, end, value, strict=True):
        held[a:b] += v
    return held


@pytest.mark.parametrize("seed", range(5))
def test_every_bin_has_the_mean_and_the_extremes_of_all_that_happened_in_it(seed: int) -> None:
    start, end, value = stretches(np.random.default_rng(seed), 3, 60)
    truth = sampled(start, end, value, int(end.max()))
    edges = bin_edges(np.concatenate([start, end]), 17)
    bins = over_bins(total(start, end, value), edges)
    assert len(edges) == 18
    for i, (a, b) in enumerate(pairwise(edges)):
        assert bins.mean[i] == pytest.approx(truth[a:b].mean())
        assert (bins.low[i], bins.high[i]) == (truth[a:b].min(), truth[a:b].max())


def test_a_spike_of_one_nanosecond_among_a_million_stretches_stays_visible() -> None:
    start = np.arange(0, 1_000_000) * 1000
    value = np.ones(len(start), dtype=np.int64)
    end = start + 1000
    end[500_000] = start[500_000] + 1
    value[500_000] = 777
    bins = over_bins(total(start, end, value), bin_edges(np.concatenate([start, end]), 500))
    assert len(bins.high) == 500
    assert bins.high.max() == 777
    assert bins.low.min() == 0  # the idle rest of that stretch
    assert np.all((bins.low <= bins.mean) & (bins.mean <= bins.high))


def test_few_stretches_are_shown_as_they_are() -> None:
    start, end, value = np.array([0, 10, 30]), np.array([10, 20, 40]), np.array([1, 5, 2])
    edges = bin_edges(np.concatenate([start, end]), 500)
    bins = over_bins(total(start, end, value), edges)
    assert edges.tolist() == [0, 10, 20, 30, 40]
    assert bins.mean.tolist() == bins.low.tolist() == bins.high.tolist() == [1, 5, 0, 2]


def test_nothing_that_happened_gives_no_bins_and_an_idle_replica_zeros() -> None:
    none = np.empty(0, dtype=np.int64)
    assert not len(over_bins(total(none, none, none), bin_edges(none, 10)).mean)
    assert over_bins(Steps(none, np.empty(0)), np.array([0, 5, 9])).high.tolist() == [0, 0]


@pytest.mark.parametrize("heavy", [False, True])
def test_a_reduced_distribution_has_true_points_only_and_is_close_everywhere(heavy: bool) -> None:
    rng = np.random.default_rng(3)
    values = rng.lognormal(0, 2, 50_000)
    weights = rng.integers(0, 5, len(values)) if heavy else np.ones(len(values), dtype=np.int64)
    at, share = distribution(values, weights, 1000)
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order]) / weights.sum()
    assert TAIL_LEVELS + 600 < len(at) <= 1000  # some levels of the tail share a value
    np.testing.assert_allclose(share, cumulated[np.searchsorted(values[order], at)], atol=1e-15)
    held = values[weights > 0]
    assert (at[0], at[-1], share[-1]) == (held.min(), held.max(), 1.0)
    drawn = share[np.searchsorted(at, held, side="right") - 1]  # a step curve, at every value that was left out
    true = cumulated[np.searchsorted(values[order], held)]
    assert np.all(drawn <= true + 1e-12)
    assert (true - drawn).max() <= 1 / (1000 - TAIL_LEVELS - 2)


def test_a_small_distribution_is_whole_and_pools_equal_values() -> None:
    at, share = distribution(np.array([3, 1, 3, 2]), np.array([1, 1, 1, 0]), 1000)
    assert at.tolist() == [1, 3]
    assert share.tolist() == pytest.approx([1 / 3, 1])
    assert [len(part) for part in distribution(np.empty(0), np.empty(0, dtype=np.int64))] == [0, 0]
