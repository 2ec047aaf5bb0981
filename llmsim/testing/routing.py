"""check_router: the tests that every router must pass, for its author to run.

    from llmsim.testing import check_router
    check_router(MyRouter)

Random workloads on three replicas, one of them twice as slow. Raises AssertionError with the failing case if the
router answers with no replica of the cluster, reads how long an output will be, loses a request, sees another
state in the middle of a macro-step than a step-by-step run shows, or decides differently in a second run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmsim.core.kvcache import KVCache
from llmsim.costs.linear import Linear
from llmsim.engine.cluster import Cluster
from llmsim.engine.recorder import Recorder
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.routers.base import Router
from llmsim.routers.view import ReplicaView
from llmsim.schedulers.sarathi import Sarathi
from llmsim.testing.conformance import CASES, COST, MAX_MODEL_LEN, Case, check_cases

if TYPE_CHECKING:
    from llmsim.core.request import Request

SLOW = Linear(constant=1e-2, per_token=4e-5, per_decode_context=2e-7, per_prefill_attention=2e-9)
REPLICAS = 3


class _Watched(Router):
    """Asks the router under test and notes every answer."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.chosen: list[int] = []

    def bind(self, replicas: int, rng: np.random.Generator) -> None:
        self.router.bind(replicas, rng)

    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        chosen = self.router.route(request, replicas, now)
        assert isinstance(chosen, int), f"the answer must be an int but is {chosen!r}"
        assert 0 <= chosen < REPLICAS, f"there is no replica {chosen}: they are 0 to {REPLICAS - 1}"
        self.chosen.append(chosen)
        return chosen

    def answered(self, request: Request) -> None:
        self.router.answered(request)


def check_router(make: Callable[[], Router], *, cases: Sequence[Case] = CASES) -> None:
    """Run every case; `make` is the router's class, or a function that makes one. Raises AssertionError."""
    check_cases(lambda case, macro: _serve(make, case, macro=macro), cases)


def _serve(make: Callable[[], Router], case: Case, *, macro: bool) -> list[int]:
    router = _Watched(make())
    router.bind(REPLICAS, np.random.default_rng(case.seed))
    cluster = Cluster(router)
    cluster.guarded = True
    for index in range(REPLICAS):
        kv = KVCache(case.num_blocks)
        scheduler = Sarathi(chunk_size=256)
        scheduler.bind(kv, MAX_MODEL_LEN)
        cost = SLOW if index == 0 else COST
        cluster.add_replica(
            scheduler,
            SimulatedExecutor(cost),
            kv,
            Recorder(),
            macro=macro,
            first_token_at_prefill_end=case.first_token_at_prefill_end,
            cost=cost,
        )
    requests = case.requests()
    cluster.run(requests)
    assert len(router.chosen) == len(requests), "a request was not routed exactly once"
    assert all(request.finish_ns >= 0 for request in requests), "a request was lost"
    assert all(replica.outstanding == 0 for replica in cluster.replicas), "a replica counts requests it does not have"
    return router.chosen
