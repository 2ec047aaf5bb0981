"""Closed forms of queueing theory: one slot is an M/G/1 queue, and Little's law holds of any run."""

from __future__ import annotations

import numpy as np
import pytest

from llmsim.core.request import Request
from llmsim.costs.linear import Linear
from llmsim.errors import ConfigError
from llmsim.schedulers.orca import Orca
from llmsim.schedulers.sarathi import Sarathi
from llmsim.theory import dai_capacity, m_d_1_wait, m_g_1_wait, m_m_1_wait, rad_token_rate
from tests.engine.build import serve, workload

SERVICE_S = 0.01
PER_TOKEN_S = 1e-5


def one_slot(rate: float, prompts: np.ndarray, seed: int) -> np.ndarray:
    """Waiting times in seconds: Poisson arrivals, one request at a time, service 10 us a prompt token."""
    rng = np.random.default_rng(seed)
    arrivals = (np.cumsum(rng.exponential(1 / rate, len(prompts))) * 1e9).astype(np.int64).tolist()
    requests = [
        Request(i, arrival, prompt, 1)
        for i, (arrival, prompt) in enumerate(zip(arrivals, prompts.tolist(), strict=True))
    ]
    serve(
        requests,
        lambda: Orca(max_num_seqs=1),
        cost=Linear(constant=1e-9, per_token=PER_TOKEN_S),
        num_blocks=10_000,
        max_model_len=100_000,
    )
    return np.array([r.first_scheduled_ns - r.arrival_ns for r in requests]) / 1e9


def mean_and_error(waits: np.ndarray, batches: int = 40) -> tuple[float, float]:
    """Mean wait, and its standard error by batch means (neighbours wait alike)."""
    means = waits[: len(waits) // batches * batches].reshape(batches, -1).mean(axis=1)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(batches))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_constant_service_waits_as_m_d_1(load):
    prompts = np.full(40_000, round(SERVICE_S / PER_TOKEN_S))
    wait, error = mean_and_error(one_slot(load / SERVICE_S, prompts, seed=1))
    assert abs(wait - m_d_1_wait(load / SERVICE_S, SERVICE_S)) < 3.5 * error


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_exponential_service_waits_as_m_m_1(load):
    rng = np.random.default_rng(2)
    prompts = np.maximum(1, np.rint(rng.exponential(SERVICE_S / PER_TOKEN_S, 40_000))).astype(int)
    wait, error = mean_and_error(one_slot(load / SERVICE_S, prompts, seed=3))
    assert abs(wait - m_m_1_wait(load / SERVICE_S, SERVICE_S)) < 3.5 * error
    assert error < 0.1 * wait


def test_waits_are_those_of_lindleys_recursion_to_the_nanosecond():
    """Exact on the very same arrivals, so what a mean wait lacks of its closed form is chance and nothing else."""
    rng = np.random.default_rng(4)
    prompts = np.maximum(1, np.rint(rng.exponential(SERVICE_S / PER_TOKEN_S, 5000))).astype(int)
    waits = np.rint(one_slot(0.9 / SERVICE_S, prompts, seed=5) * 1e9).astype(int)
    gaps = np.random.default_rng(5).exponential(SERVICE_S / 0.9, len(prompts))
    arrivals = (np.cumsum(gaps) * 1e9).astype(np.int64).tolist()
    free, expected = 0, []
    for arrival, prompt in zip(arrivals, prompts.tolist(), strict=True):
        began = max(arrival, free)
        expected.append(began - arrival)
        free = began + 10_000 * prompt + 1  # 10 us a token and the constant of 1 ns
    assert waits.tolist() == expected
    assert max(expected) > 20 * SERVICE_S * 1e9


def test_littles_law_holds_of_any_run():
    requests = workload(4, n=300, rate=5.0)
    serve(requests, Sarathi, num_blocks=2000)
    arrivals = np.array([r.arrival_ns for r in requests])
    finishes = np.array([r.finish_ns for r in requests])
    begin, end = arrivals.min(), finishes.max()
    times = np.sort(np.concatenate([arrivals, finishes]))
    steps = np.searchsorted(np.sort(arrivals), times, "right") - np.searchsorted(np.sort(finishes), times, "right")
    mean_outstanding = float((steps[:-1] * np.diff(times)).sum() / (end - begin))
    rate = len(requests) / (end - begin)
    assert mean_outstanding == pytest.approx(rate * (finishes - arrivals).mean(), rel=1e-12)


def test_closed_forms_by_hand():
    assert m_d_1_wait(0.5, 1.0) == pytest.approx(0.5)
    assert m_m_1_wait(0.5, 1.0) == pytest.approx(1.0)
    assert m_g_1_wait(0.5, 1.0, 3.0) == pytest.approx(1.5)
    assert rad_token_rate(128, 4e-3, 5e-6) == pytest.approx(128 / 4640e-6)
    assert dai_capacity(128, 0.04675) == pytest.approx(1280 / 0.4675)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m_d_1_wait(1.0, 1.0), "load in"),
        (lambda: rad_token_rate(0, 1.0, 1.0), "at least 1 token"),
        (lambda: rad_token_rate(1, 0.0, 0.0), "not both 0"),
        (lambda: dai_capacity(1, 0.0), "takes time"),
    ],
)
def test_closed_forms_refuse_what_has_none(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
