"""Arrival processes: right rates, right burstiness, always sorted, the same numbers at every rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.errors import ConfigError
from llmsim.traces.arrivals import ArrivalsSpec, draw_arrivals

N = 40_000
RAMP = ((0.0, 1.0), (60.0, 5.0), (60.0, 0.0), (90.0, 0.0), (120.0, 8.0))


def draw(n: int = N, seed: int = 0, **options: Any) -> np.ndarray:
    return draw_arrivals(ArrivalsSpec(**options), n, np.random.default_rng(seed))


def rate(arrival_ns: np.ndarray) -> float:
    return float(len(arrival_ns) / (arrival_ns[-1] / 1e9))


def cv(arrival_ns: np.ndarray) -> float:
    gaps = np.diff(arrival_ns, prepend=0)
    return float(gaps.std() / gaps.mean())


@pytest.mark.parametrize(
    ("options", "gap_cv"),
    [
        ({"kind": "poisson"}, 1.0),
        ({"kind": "gamma"}, 1.0),
        ({"kind": "gamma", "burstiness": 0.25}, 2.0),
        ({"kind": "gamma", "burstiness": 4.0}, 0.5),
        ({"kind": "constant"}, 0.0),
        ({"kind": "bursts", "burst_size": 8}, math.sqrt(15.0)),
    ],
)
def test_the_mean_rate_and_the_burstiness_are_those_asked_for(options: dict[str, Any], gap_cv: float) -> None:
    arrival = draw(rate=3.0, **options)
    # Four standard errors of the mean gap.
    assert rate(arrival) == pytest.approx(3.0, rel=4 * gap_cv / math.sqrt(N) + 1e-9)
    assert cv(arrival) == pytest.approx(gap_cv, rel=0.06, abs=1e-6)


def test_on_off_is_silent_while_off_and_keeps_the_mean_rate() -> None:
    arrival = draw(kind="on_off", rate=3.0, on_s=5.0, off_s=15.0)
    assert rate(arrival) == pytest.approx(3.0, rel=0.03)
    assert ((arrival / 1e9) % 20.0 <= 5.0 + 1e-6).all()


def test_the_gap_cap_of_the_slai_study_raises_the_rate_by_five_percent() -> None:
    spec = ArrivalsSpec(kind="poisson", rate=2.0, gap_cap=3.0)
    assert spec.mean_rate == pytest.approx(2.0 * 1.0524, rel=1e-4)
    arrival = draw(kind="poisson", rate=2.0, gap_cap=3.0)
    assert rate(arrival) == pytest.approx(2.1048, rel=0.02)
    assert np.diff(arrival).max() <= 1_500_000_001
    assert ArrivalsSpec(kind="poisson", rate=2.0).mean_rate == 2.0


def test_a_ramp_follows_the_integral_of_its_rate() -> None:
    arrival = draw(n=20_000, kind="ramp", ramp=RAMP) / 1e9
    for start, end, expected in [
        (0, 30, 60.0),
        (30, 60, 120.0),
        (60, 90, 0.0),
        (90, 120, 120.0),
        (120, 1120, 8000.0),
    ]:
        count = ((arrival >= start) & (arrival < end)).sum()
        assert abs(count - expected) <= 4 * math.sqrt(expected)


def test_a_flat_ramp_is_the_poisson_process() -> None:
    flat = draw(n=1000, kind="ramp", ramp=[[0, 4]])
    assert np.abs(flat - draw(n=1000, kind="poisson", rate=4.0)).max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "all_at_once"},
        {"kind": "closed_loop", "max_concurrency": 4},
        {"kind": "poisson", "rate": math.inf},
    ],
)
def test_all_at_once_is_all_at_zero(options: dict[str, Any]) -> None:
    assert not draw(n=5, **options).any()


def test_rates_share_their_random_numbers() -> None:
    for options in (
        {"kind": "poisson"},
        {"kind": "gamma", "burstiness": 0.5},
        {"kind": "bursts", "burst_size": 3},
    ):
        slow, fast = draw(n=999, rate=1.0, **options), draw(n=999, rate=4.0, **options)
        assert np.abs(slow - 4 * fast).max() <= 4


KINDS = st.sampled_from(
    [
        {"kind": "poisson", "rate": 2.0, "gap_cap": 1.5},
        {"kind": "gamma", "rate": 2.0, "burstiness": 0.01},
        {"kind": "constant", "rate": 1e6},
        {"kind": "bursts", "rate": 2.0, "burst_size": 7},
        {"kind": "on_off", "rate": 2.0, "on_s": 0.1, "off_s": 3.0},
        {"kind": "ramp", "ramp": RAMP},
    ]
)


@given(KINDS, st.integers(1, 300), st.integers(0, 2**32))
def test_arrivals_are_sorted_start_after_zero_and_repeat(options: dict[str, Any], n: int, seed: int) -> None:
    arrival = draw(n=n, seed=seed, **options)
    assert arrival.dtype == np.int64
    assert arrival.shape == (n,)
    assert arrival[0] >= 0
    assert (np.diff(arrival) >= 0).all()
    assert (arrival == draw(n=n, seed=seed, **options)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "poison"}, "arrivals.kind must be one of .* but got 'poison'. Did you mean 'poisson'"),
        ({"kind": "poisson"}, "arrivals.kind 'poisson' needs 'rate'"),
        ({"kind": "poisson", "rate": 0.0}, "arrivals.rate must be a number > 0, .inf allowed but got 0.0"),
        ({"kind": "poisson", "rate": math.nan}, "arrivals.rate must be a number > 0"),
        (
            {"kind": "poisson", "rate": "fast"},
            "arrivals.rate must be a number > 0, .inf allowed but got 'fast'",
        ),
        (
            {"kind": "bursts", "rate": math.inf, "burst_size": 2},
            "arrivals.rate must be a number > 0 but got inf",
        ),
        (
            {"kind": "poisson", "rate": 1.0, "burstiness": 2.0},
            "has no use for 'burstiness'.*it uses rate, gap_cap",
        ),
        ({"kind": "all_at_once", "rate": 1.0}, "it uses no option"),
        (
            {"kind": "gamma", "rate": 1.0, "burstiness": 0},
            "arrivals.burstiness must be a number > 0 but got 0",
        ),
        (
            {"kind": "bursts", "rate": 1.0, "burst_size": 0},
            "arrivals.burst_size must be a whole number >= 1 but got 0",
        ),
        (
            {"kind": "closed_loop", "max_concurrency": 1.5},
            "max_concurrency must be a whole number >= 1 but got 1.5",
        ),
        ({"kind": "ramp", "ramp": []}, "must be a list of"),
        ({"kind": "ramp", "ramp": [[0, 1, 2]]}, "holds"),
        ({"kind": "ramp", "ramp": [[1, 1]]}, "times must start at 0"),
        ({"kind": "ramp", "ramp": [[0, 1], [5, 1], [4, 1]]}, "never fall"),
        ({"kind": "ramp", "ramp": [[0, 1], [5, 0]]}, "must end at a rate > 0"),
        ({"kind": "ramp", "ramp": [[0, -1]]}, "rate must be a number >= 0 but got -1"),
    ],
)
def test_options_outside_what_is_allowed_say_so(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ArrivalsSpec(**options)


def test_times_past_the_end_of_the_clock_are_refused() -> None:
    with pytest.raises(ConfigError, match="past the clock's end"):
        draw(n=10, kind="constant", rate=1e-10)
