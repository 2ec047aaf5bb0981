"""Point C of Dai et al. (arXiv 2504.07347): at exactly critical load the work-conserving rules stay bounded."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from llmsim.core.request import NEVER, Request
from llmsim.costs.stratified import Tiled
from llmsim.schedulers.orca import Orca
from llmsim.spec import registry
from llmsim.testing import check_scheduler
from llmsim.theory import dai_capacity
from tests.engine.build import serve

POLICIES = Path(__file__).parents[2] / "experiments" / "dai_policies.py"
COST = Tiled(constant=11.28e-3, tile_tokens=128, per_tile=35.47e-3)
GAP_NS = 467_500_000
HORIZON_NS = 500_000_000_000
NAMES = ["Sarathi", "Orca", "PrefillFirst", "DecodeFirst"]


def policy(name: str):
    return registry.resolve("scheduler", f"{POLICIES}:{name}")


def pending(make, gap_ns: int = GAP_NS) -> np.ndarray:
    """Requests that have arrived and are not answered, every half second."""
    arrivals = range(gap_ns, HORIZON_NS, gap_ns)
    requests = [Request(i, arrival, 290, 990) for i, arrival in enumerate(arrivals)]
    serve(requests, make, cost=COST, num_blocks=100_000, first_token_at_prefill_end=False, horizon_ns=HORIZON_NS)
    finished = np.sort([HORIZON_NS * 2 if r.finish_ns == NEVER else r.finish_ns for r in requests])
    at = np.arange(0, HORIZON_NS, GAP_NS // 2)
    return np.searchsorted(np.array(arrivals), at, "right") - np.searchsorted(finished, at, "right")


@cache
def pending_of(name: str, gap_ns: int = GAP_NS) -> np.ndarray:
    """`pending` of one of the example policies, run once; do not write to it."""
    return pending(policy(name), gap_ns)


def test_the_load_of_point_c_is_exactly_one():
    assert pytest.approx(dai_capacity(128, 46.75e-3)) == (290 + 990) / (GAP_NS / 1e9)


@pytest.mark.parametrize(
    ("name", "mean", "most"),
    [("Sarathi", 95.3, 101), ("PrefillFirst", 204.4, 333), ("DecodeFirst", 529.4, 1059)],
)
def test_queue_lengths_are_the_published_ones(name, mean, most):
    found = pending_of(name)
    assert found.mean() == pytest.approx(mean, rel=0.01)
    assert abs(int(found.max()) - most) <= 1


def test_whole_prompts_in_a_mixed_batch_come_near_the_published_orca():
    found = pending(lambda: Orca(max_num_seqs=100))
    assert found.mean() == pytest.approx(174.3, rel=0.04)
    assert found.max() == pytest.approx(269, rel=0.04)


@pytest.mark.parametrize("name", NAMES)
def test_work_conserving_rules_are_bounded_and_the_others_diverge(name):
    late = pending_of(name)[-400:]
    growth = np.polyfit(np.arange(400) * GAP_NS / 2e9, late, 1)[0]
    assert (abs(growth) < 0.02) == (name in ("Sarathi", "Orca")), f"the queue grows by {growth:.3f} requests/s"


@pytest.mark.parametrize(("places", "growth"), [(100, 0.0), (99, 1 / 46.75), (98, 2 / 46.75)])
def test_the_cap_of_100_residents_is_just_enough_and_one_place_less_is_not(places, growth):
    """99 decodes leave 29 tokens of a batch, so a prompt of 290 takes 10 batches: 1000 batches of 46.75 ms a request.

    That is 100 places at one request every 467.5 ms. With fewer, batches are not full though requests wait: the cap
    breaks work conservation, and the queue grows by what the places lack.
    """
    make = policy("Sarathi")
    late = pending(lambda: make(max_num_seqs=places))[-1600:]  # long against the 47 s from one step to the next
    found = np.polyfit(np.arange(1600) * GAP_NS / 2e9, late, 1)[0]
    assert found == pytest.approx(growth, abs=1e-3)


@pytest.mark.parametrize("load", [1.0, 0.95])
def test_orca_with_whole_prompts_is_not_work_conserving_and_diverges(load):
    """A prompt of 290 with 99 decodes takes four tiles, 512 tokens' worth, for 389: capacity below the offered load."""
    late = pending(lambda: Orca(max_num_seqs=100), gap_ns=round(GAP_NS / load))[-400:]
    assert np.polyfit(np.arange(400) * GAP_NS / 2e9, late, 1)[0] > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_below_half_the_load_all_but_decode_first_are_bounded(name):
    late = pending_of(name, 2 * GAP_NS)[-400:]
    growth = np.polyfit(np.arange(400) * GAP_NS / 2e9, late, 1)[0]
    assert (abs(growth) < 0.02) == (name != "DecodeFirst")


@pytest.mark.parametrize("name", ["Sarathi", "PrefillFirst", "DecodeFirst"])
def test_the_example_policies_conform(name):
    check_scheduler(policy(name))
