"""Synthetic length distributions: right moments, within limits, at least one token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.errors import ConfigError
from llmsim.traces.arrivals import ArrivalsSpec
from llmsim.traces.distributions import DistributionSpec, clipped_mean, distribution, mean_moved
from llmsim.traces.lengths import LengthsSpec, draw_lengths
from llmsim.traces.spec import WorkloadSpec
from llmsim.traces.workload import build_workload

N = 40_000


def draw(n: int = N, seed: int = 0, **options: Any) -> np.ndarray:
    return draw_lengths(DistributionSpec(**options), n, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        ({"kind": "fixed", "value": 7}, 7.0, 0.0),
        ({"kind": "uniform", "low": 10, "high": 30}, 20.0, 6.055),
        ({"kind": "normal", "mean": 1000, "std": 100}, 1000.0, 100.0),
        ({"kind": "lognormal", "mean": 1000, "std": 500}, 1000.0, 500.0),
        ({"kind": "lognormal", "mean": 1000, "std": 0}, 1000.0, 0.0),
    ],
)
def test_mean_and_deviation_are_those_asked_for(options: dict[str, Any], mean: float, std: float) -> None:
    tokens = draw(**options)
    assert tokens.mean() == pytest.approx(mean, abs=4 * std / N**0.5 + 1e-9)
    assert tokens.std() == pytest.approx(std, rel=0.05, abs=1e-9)


def test_uniform_reaches_both_ends() -> None:
    assert set(draw(kind="uniform", low=3, high=5).tolist()) == {3, 4, 5}


def test_zipf_weights_fall_as_a_power_of_the_rank() -> None:
    tokens = draw(kind="zipf", exponent=1.0, low=5, high=8)
    share = np.bincount(tokens, minlength=9)[5:] / N
    expected = np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12)
    assert np.abs(share - expected).max() < 0.01
    assert draw(kind="zipf", exponent=0.0, high=2).mean() == pytest.approx(1.5, abs=0.01)


OPTIONS = st.sampled_from(
    [
        {"kind": "fixed", "value": 9},
        {"kind": "uniform", "low": 1, "high": 90},
        {"kind": "normal", "mean": 5, "std": 50},
        {"kind": "normal", "mean": 500, "std": 500, "low": 10, "high": 60},
        {"kind": "lognormal", "mean": 3, "std": 30},
        {"kind": "lognormal", "mean": 300, "std": 30, "high": 100},
        {"kind": "zipf", "exponent": 0.6, "low": 4, "high": 1000},
    ]
)


@given(OPTIONS, st.integers(1, 200), st.integers(0, 2**32))
def test_lengths_are_within_limits_and_begin_alike(options: dict[str, Any], n: int, seed: int) -> None:
    tokens = draw(n=n, seed=seed, **options)
    assert tokens.dtype == np.int64
    assert tokens.shape == (n,)
    assert (tokens >= options.get("low", 1)).all()
    assert (tokens <= options.get("high", 10**7)).all()
    assert (draw(n=n + 7, seed=seed, **options)[:n] == tokens).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "log-normal"}, "Did you mean 'lognormal'"),
        ({"kind": "fixed"}, "'fixed' needs 'value'"),
        ({"kind": "fixed", "value": 0}, "value must be a whole number >= 1 but got 0"),
        ({"kind": "fixed", "value": 2.5}, "value must be a whole number >= 1 but got 2.5"),
        ({"kind": "uniform", "low": 5, "high": 4}, "high must be 5 to 10000000 but got 4"),
        ({"kind": "normal", "mean": -1, "std": 1}, "mean must be a number > 0 but got -1"),
        ({"kind": "normal", "mean": 1, "std": -1}, "std must be a number >= 0 but got -1"),
        ({"kind": "zipf", "exponent": 1.0}, "'zipf' needs 'high'"),
        ({"kind": "uniform", "low": 1, "high": 2, "mean": 3}, "has no use for 'mean'"),
    ],
)
def test_options_outside_what_is_allowed_say_so(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DistributionSpec(**options)


def test_marginals_belong_to_synthetic_lengths() -> None:
    fixed = DistributionSpec(value=1)
    with pytest.raises(ConfigError, match=r"lengths.kind 'synthetic' needs 'output'"):
        LengthsSpec(kind="synthetic", prompt=fixed)
    with pytest.raises(ConfigError, match=r"lengths.kind 'trace' has no use for 'prompt'"):
        LengthsSpec(kind="trace", prompt=fixed)
    with pytest.raises(ConfigError, match=r"--output-tokens, or workload\.lengths\.output"):
        LengthsSpec(prompt=fixed)
    assert LengthsSpec(prompt=1, output="1") == LengthsSpec(kind="synthetic", prompt=fixed, output=fixed)
    assert LengthsSpec() == LengthsSpec(kind="trace")
    with pytest.raises(ConfigError, match=r"lengths.kind must be one of .* but got 'row'"):
        LengthsSpec(kind="row")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (1500, {"value": 1500}),
        ("1500", {"value": 1500}),
        ("fixed:7", {"value": 7}),
        ("uniform:100-2000", {"kind": "uniform", "low": 100, "high": 2000}),
        ("normal:1180,900", {"kind": "normal", "mean": 1180, "std": 900}),
        ("lognormal:1500,0.8", {"kind": "lognormal", "mean": 1500, "std": 1200}),
        ("lognormal,mean=9,std=5,high=20", {"kind": "lognormal", "mean": 9, "std": 5, "high": 20}),
        ("zipf:exponent=1.1,high=9", {"kind": "zipf", "exponent": 1.1, "high": 9}),
    ],
)
def test_a_distribution_in_one_word_is_the_one_written_out(text: str | int, options: dict[str, Any]) -> None:
    assert distribution(text) == DistributionSpec(**options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "at least 1 token but got 0"),
        ("-5", "at least 1 token"),
        ("1.5", "must be a number of tokens as 1500"),
        ("lognorml:1500,0.8", "Did you mean 'lognormal'"),
        ("lognormal:1500", "must be written lognormal:1500,0.8"),
        ("lognormal:1500,900", r"write lognormal,mean=1500,std=900 for tokens"),
        ("normal:1500,0.8", r"write normal:1500,1200"),
        ("normal:0,5", "mean above 0"),
        ("uniform:9-3", "LOW-HIGH"),
        ("uniform:9", "must be written uniform:100-2000"),
        ("zipf:1.1", "written zipf,option=value"),
        ("normal,mean=1,mean=2", "gives mean twice"),
    ],
)
def test_a_word_that_is_no_distribution_says_how_to_write_one(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        distribution(text)


def test_lengths_in_one_word_have_the_mean_asked_for() -> None:
    tokens = draw_lengths(distribution("lognormal:1500,0.8"), 200_000, np.random.default_rng(1))
    assert tokens.mean() == pytest.approx(1500, rel=0.01)
    assert tokens.std() == pytest.approx(1200, rel=0.03)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "normal", "mean": 1180, "std": 900},
        {"kind": "normal", "mean": 300, "std": 400, "low": 50, "high": 600},
        {"kind": "lognormal", "mean": 500, "std": 1500, "low": 20, "high": 2000},
        {"kind": "lognormal", "mean": 500, "std": 400},
    ],
)
def test_the_mean_of_clipped_draws_is_known_and_told_where_it_moved(options: dict[str, Any]) -> None:
    spec = DistributionSpec(**options)
    tokens = draw_lengths(spec, 400_000, np.random.default_rng(3))
    assert clipped_mean(spec) == pytest.approx(tokens.mean(), rel=0.005)
    moved = abs(tokens.mean() / spec.mean - 1) > 0.02  # type: ignore[operator]
    assert bool(mean_moved(spec)) == moved


def test_a_workload_says_how_far_its_mean_moved() -> None:
    assert mean_moved(distribution("normal:1180,900")).startswith(
        "normal with mean 1,180 and std 900 is clipped below 1, so its mean is 1,220 (+3.4%)"
    )
    spec = WorkloadSpec(
        lengths=LengthsSpec(prompt="normal:1180,900", output=214),
        arrivals=ArrivalsSpec(kind="poisson", rate=1),
        num_requests=10,
    )
    (note,) = build_workload(spec, 0).description["notes"]
    assert note.startswith("prompt lengths: normal with mean 1,180")
