"""RAD: tiles are full unless every resident decodes, and no node beats the paper's bound."""

from __future__ import annotations

import numpy as np
import pytest

from llmsim.costs.strata import Tiled
from llmsim.request import Request
from llmsim.routers.random import RandomRouter
from llmsim.schedulers.rad import Rad
from tests.core.build import serve

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


def outstanding(requests: list[Request], at: int) -> int:
    return sum(r.arrival_ns <= at < r.finish_ns for r in requests)


@pytest.mark.parametrize(("load", "stable"), [(0.9, True), (1.1, False)])
@pytest.mark.parametrize("replicas", [1, 4])
def test_rad_is_stable_below_the_bound_and_diverges_above(load, stable, replicas):
    rate = load * replicas * BOUND_TOKENS_PER_S / MEAN_TOKENS
    requests = poisson(rate, 4000 * replicas)
    serve(requests, Rad, cost=COST, num_blocks=200_000, replicas=replicas, router=RandomRouter())
    last = requests[-1].arrival_ns
    early, late = (
        np.mean([outstanding(requests, int(last * x)) for x in span])
        for span in (np.linspace(0.3, 0.5, 20), np.linspace(0.8, 1.0, 20))
    )
    assert (late < 1.5 * early) == stable


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
