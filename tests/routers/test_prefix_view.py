"""What a router sees of prefix caches is what a step-by-step run shows it, also in the middle of a macro-step."""

from __future__ import annotations

import numpy as np
import pytest

from llmsim.core.prefix.cache import PrefixCache
from llmsim.engine.cluster import Cluster
from llmsim.engine.recorder import Recorder
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.routers.base import Router
from llmsim.schedulers.sarathi import Sarathi
from llmsim.schedulers.vllm_v1 import VllmV1
from llmsim.testing.conformance import CASES, COST
from tests.effort import cases


class MostCached(Router):
    """The replica that holds most of the prompt; of those, the one with the fewest requests."""

    def bind(self, replicas, rng):
        super().bind(replicas, rng)
        self.seen = []

    def route(self, request, replicas, now):
        found = [view.cached_tokens(request) for view in replicas]
        self.seen.append(found)
        return min(range(len(found)), key=lambda at: (-found[at], replicas[at].outstanding))


def served(make, case, *, macro, ahead):
    router = MostCached()
    router.bind(3, np.random.default_rng(0))
    cluster = Cluster(router)
    for _ in range(3):
        kv = PrefixCache(case.num_blocks)
        scheduler = make()
        scheduler.bind(kv, 2000)
        executor = SimulatedExecutor(COST)
        cluster.add_replica(scheduler, executor, kv, Recorder(), macro=macro, async_scheduling=ahead)
    requests = case.requests(sharing=True)
    cluster.run(requests)
    return router.seen, [(request.replica, request.cached_tokens, request.finish_ns) for request in requests]


@pytest.mark.parametrize("case", cases(CASES, 6), ids=lambda case: f"{case.seed}-{case.rate:g}-{case.num_blocks}")
@pytest.mark.parametrize(
    ("make", "ahead"),
    [
        (lambda: VllmV1(max_num_seqs=64), False),
        (lambda: VllmV1(max_num_seqs=64, version="0.33"), True),
        (Sarathi, False),
    ],
)
def test_routers_see_what_outputs_have_filled_in_the_middle_of_a_run(make, ahead, case):
    single = served(make, case, macro=False, ahead=ahead)
    assert served(make, case, macro=True, ahead=ahead) == single
    assert any(max(found) for found in single[0])
