"""RAD: tiles are full unless every resident decodes, and no node beats the paper's bound."""

from __future__ import annotations

import numpy as np
import pytest

from llmsim.core.request import Request
from llmsim.costs.stratified import Tiled
from llmsim.routers.random import RandomRouter
from llmsim.schedulers.rad import Rad
from llmsim.theory import rad_token_rate
from tests.effort import cases
from tests.engine.build import serve

TILE = 128
COST = Tiled(tile_tokens=TILE, per_tile=4e-3, per_token=5e-6)
BOUND_TOKENS_PER_S = TILE / 4640e-6
"""One tile of 4 ms and 128 tokens of 5 us each: no scheduler does more tokens a second."""


def poisson(rate: float, n: int, seed: int = 0) -> list[Request]:
    """Prompts of whole tiles and geometric outputs."""
    rng = np.random.default_rng(seed)
    arrivals = (np.cumsum(rng.exponential(1 / rate, n)) * 1e9).astype(np.int64).tolist()
    prompts = (TILE * rng.integers(1, 9, n)).tolist()
    outputs = rng.geometric(1 / 180, n).tolist()
    return [Request(i, *row) for i, row in enumerate(zip(arrivals, prompts, outputs, strict=True))]


MEAN_TOKENS = TILE * 4.5 + 180 - 1
"""Tokens a request runs through the linear layers: the prompt's completion emits the first output."""

REQUESTS = 60_000
"""So many that a drift of 3 % (1,700 requests) stands well above the noise of arrivals and sizes (some 300)."""


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.97, 1.03])
@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("seed", cases([5, 6, 7], 1))
def test_rad_is_stable_at_97_percent_of_the_bound_and_diverges_at_103(load, replicas, seed):
    """Above the bound requests must pile up at the rate at which they exceed it; below, the queue must not grow."""
    requests = poisson(1.0, REQUESTS, seed=seed)
    tokens = sum(r.prompt_tokens + r.output_tokens - 1 for r in requests) / REQUESTS
    rate = load * replicas * rad_token_rate(TILE, 4e-3, 5e-6) / tokens
    for request in requests:
        request.arrival_ns = round(request.arrival_ns / rate)
    serve(requests, Rad, cost=COST, num_blocks=10**7, replicas=replicas, router=RandomRouter())
    arrivals = np.array([r.arrival_ns for r in requests])
    finished = np.sort([r.finish_ns for r in requests])
    outstanding = np.arange(1, REQUESTS + 1) - np.searchsorted(finished, arrivals, "right")
    half = REQUESTS // 2
    growth = np.polyfit(np.arange(half), outstanding[half:], 1)[0]  # requests per arrival
    excess = 1 - 1 / load
    if load > 1:
        assert 0.6 * excess < growth < 1.4 * excess
        assert outstanding[-1] > 0.6 * excess * REQUESTS
    else:
        assert abs(growth) < 0.01
        assert outstanding[half:].mean() < 600


def test_rad_never_exceeds_the_bound_and_fills_its_tile_unless_all_residents_decode():
    requests = poisson(1.2 * BOUND_TOKENS_PER_S / MEAN_TOKENS, 3000)
    cluster = serve(requests, Rad, cost=COST, num_blocks=200_000)
    table = cluster.replicas[0].recorder.table()
    tokens = table["prefill_tokens"] + table["decode_tokens"]
    seconds = (table["end_ns"] - table["start_ns"]) / 1e9
    assert (tokens <= BOUND_TOKENS_PER_S * seconds * (1 + 1e-9)).all()
    not_full = tokens < TILE
    assert (table["decode_tokens"][not_full] == table["running"][not_full]).all()
    assert (table["waiting"][not_full] == 0).all()


def test_a_cycle_prefills_no_more_than_n_prompts_and_finishes_them_all():
    requests = [Request(i, 0, 256, 20) for i in range(7)]
    serve(requests, lambda: Rad(prefills_per_cycle=3), cost=COST)
    ends = sorted({r.finish_ns for r in requests})
    for request in requests[3:]:
        assert request.first_scheduled_ns >= ends[0]
    assert requests[3].first_scheduled_ns >= max(r.finish_ns for r in requests[:3])
