"""Samples added up in parts: one form whatever the order, sketched within the stated error past their limit."""

from __future__ import annotations

import numpy as np
import pytest

from llmsim.errors import ConfigError
from llmsim.metrics.load import EVERYTHING, Busy, Load, Times
from llmsim.metrics.samples import RELATIVE_ERROR, Sample
from llmsim.metrics.saturation import judge
from llmsim.metrics.usage import Span
from tests.metrics.queues import md1

POINTS = [0, 0.1, 25, 50, 90, 99, 99.9, 100]


def parts_of(rng, n=20_000):
    values = np.rint(rng.lognormal(17, 1, n)).astype(np.int64)
    values[rng.random(n) < 0.01] = 0
    return values, rng.integers(0, 5, n)


@pytest.mark.parametrize("seed", range(3))
def test_parts_in_any_order_are_the_whole(seed):
    rng = np.random.default_rng(seed)
    values, weights = parts_of(rng)
    whole, shuffled = Sample.of(values, weights), Sample()
    order = rng.permutation(len(values))
    for part in np.array_split(order, 37):
        shuffled.add(values[part], weights[part])
    expanded = np.repeat(values, weights)
    assert shuffled.percentiles(POINTS).tolist() == np.percentile(expanded, POINTS).tolist()
    assert (shuffled.mean(), shuffled.std()) == (whole.mean(), whole.std())
    assert shuffled.std() == pytest.approx(expanded.std(), rel=1e-12)
    assert shuffled.count == len(expanded)


def test_sums_that_64_bits_do_not_hold_are_floats_or_an_error_and_never_wrap():
    gap, count = np.array([40_000_000], dtype=np.int64), np.array([10**12], dtype=np.int64)
    assert Sample.of(gap, count).mean() == 40_000_000
    sample = Sample()
    for _ in range(2):
        sample.add(np.array([1, 2]), np.array([1 << 62, 1 << 61]))
    with pytest.raises(ConfigError, match="cell by cell"):
        sample.mean()


@pytest.mark.parametrize("limit", [10, 3000])
def test_past_the_limit_percentiles_are_within_the_stated_error(limit):
    rng = np.random.default_rng(1)
    values, weights = parts_of(rng)
    sample = Sample(exact_values=limit)
    for part in np.array_split(np.arange(len(values)), 50):
        sample.add(values[part], weights[part])
    expanded = np.repeat(values, weights)
    assert not sample.exact
    found = sample.percentiles(POINTS)
    # A sketch answers with the value at a rank, numpy with a point between two ranks.
    low = np.percentile(expanded, POINTS, method="lower")
    high = np.percentile(expanded, POINTS, method="higher")
    assert np.all(found >= low * (1 - RELATIVE_ERROR) - 1)
    assert np.all(found <= high * (1 + RELATIVE_ERROR) + 1)
    assert sample.count == len(expanded)
    assert sample.mean() == pytest.approx(expanded.mean(), rel=1e-12)
    assert sample.std() == pytest.approx(expanded.std(), rel=1e-9)


def test_times_past_the_limit_keep_their_number():
    rng = np.random.default_rng(2)
    at = rng.integers(0, 10**12, 50_000)
    exact, merged = Times(EVERYTHING), Times(1000)
    for part in np.array_split(at, 20):
        exact.add(part)
        merged.add(part)
    edges = np.linspace(0, 10**12, 50).astype(np.int64)
    assert merged.count == exact.count == 50_000
    assert np.abs(merged.until(edges) - exact.until(edges)).max() < 50_000 / 400
    assert merged.inside_ns(0, 10**12) == pytest.approx(exact.inside_ns(0, 10**12), rel=0.01)


@pytest.mark.parametrize("rho", [0.5, 0.95, 1.2])
def test_a_verdict_on_merged_stretches_is_that_on_all(rho):
    requests, iterations = md1(np.random.default_rng(3), rho, 4000)
    requests = requests.assign(id=range(len(requests)))
    exact, merged = Load(limit=EVERYTHING), Load(limit=300)
    merged.busy = Busy(300)
    for load in (exact, merged):
        for part in np.array_split(np.arange(len(requests)), 10):
            load.add_requests(requests.iloc[part])
        for part in np.array_split(np.arange(len(iterations)), 10):
            load.busy.add(iterations.iloc[part])
    assert len(merged.busy.columns[0]) <= 300
    one, other = judge(exact), judge(merged)
    assert one.verdict == other.verdict
    for key in ("busy_share", "queued_share", "late_arrivals", "outstanding_last_third"):
        assert other.evidence[key] == pytest.approx(one.evidence[key], rel=0.03, abs=0.03), key


def test_stretches_in_parts_are_the_stretches_of_the_whole():
    _, iterations = md1(np.random.default_rng(4), 0.9, 2000)
    whole, parts = Busy(EVERYTHING), Busy(EVERYTHING)
    whole.add(iterations)
    for part in np.array_split(np.arange(len(iterations)), 13):
        parts.add(iterations.iloc[part])
    span = Span(int(iterations["end_ns"].iloc[300]) - 5, int(iterations["end_ns"].iloc[-100]), 1)
    for one, other in zip(whole.within(span)[1:3], parts.within(span)[1:3], strict=True):
        assert one.sum() == other.sum()
