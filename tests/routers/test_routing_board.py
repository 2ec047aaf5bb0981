"""The board that routers share: what it shows, whom it asks, and that decisions do not depend on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from llmsim.core.batch import Work
from llmsim.core.kvcache import KVCache
from llmsim.engine.cluster import Cluster
from llmsim.engine.recorder import Recorder
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.routers.base import Router
from llmsim.routers.least_requests import LeastRequests
from llmsim.routers.least_tokens import LeastTokens
from llmsim.routers.least_work import LeastWork
from llmsim.routers.most_free_kv import MostFreeKv
from llmsim.routers.view import LoadBoard
from llmsim.schedulers.sarathi import Sarathi
from tests.engine.build import POLICIES, LineCost, serve, workload
from tests.engine.observe import requests_of


class _Slow(LineCost):
    def femtoseconds(self, work):
        return 3 * super().femtoseconds(work)

    def decode_slope(self, work):
        return 3 * super().decode_slope(work)


class Plain(Router):
    """The loads of the shipped routers as their docstrings have them, from every view anew."""

    def __init__(self, router):
        self.router = router
        self.compared = 0

    def bind(self, replicas, rng):
        super().bind(replicas, rng)
        self.router.bind(replicas, rng)

    def answered(self, request):
        self.router.answered(request)

    def route(self, request, replicas, now):
        chosen = self.router.route(request, replicas, now)
        loads = [self.load(view, request) for view in replicas]
        assert self.least(loads) == chosen, loads
        self.compared += 1
        return chosen

    def load(self, view, request):
        router = self.router
        if isinstance(router, LeastRequests):
            return view.outstanding
        if isinstance(router, MostFreeKv):
            return view.prefill_tokens - view.free_blocks * view.block_size
        outputs = router.output_tokens
        decode = max(view.outstanding * outputs - view.generated_tokens, view.outstanding)
        if isinstance(router, LeastTokens):
            return view.prefill_tokens + decode
        chunk, batch, prompt = router.chunk_tokens, router.decode_batch, request.prompt_tokens
        pairs = chunk * (prompt // 2) + chunk * (chunk + 1) // 2
        context = batch * (prompt + int(outputs / 2))
        per_prompt_token = view.seconds(Work(chunk, 1, prompt // 2, pairs)) / chunk
        per_output_token = view.seconds(Work(decode_tokens=batch, decode_context=context)) / batch
        return (view.prefill_tokens + prompt) * per_prompt_token + (decode + outputs) * per_output_token


@pytest.mark.parametrize("policy", ["sarathi_fcfs", "vllm_v1", "vllm_v0", "orca", "slai_fcfs", "naive"])
@pytest.mark.parametrize("make", [LeastWork, LeastTokens, LeastRequests, MostFreeKv])
@pytest.mark.parametrize("case", ["busy", "short of KV", "all ties"])
def test_a_router_that_asks_only_what_changed_decides_as_one_that_asks_everybody(policy, make, case):
    requests = {
        "busy": lambda: workload(5, n=150, rate=25.0),
        "short of KV": lambda: workload(6, n=150, rate=25.0),
        "all ties": lambda: requests_of([(i // 7 * 50_000_000, 200, 40) for i in range(120)]),
    }[case]()
    router = Plain(make())
    router.bind(5, np.random.default_rng(1))
    cluster = Cluster(router)
    fast, slow = LineCost(), _Slow()
    for cost in (fast, slow, fast, slow, fast):
        kv = KVCache(250 if case == "short of KV" else 2000)
        scheduler = POLICIES[policy]()
        scheduler.bind(kv, 3000)
        ahead = policy == "vllm_v1" and cost is slow
        cluster.add_replica(scheduler, SimulatedExecutor(cost), kv, Recorder(), cost=cost, async_scheduling=ahead)
    cluster.run(requests)
    assert router.compared == len(requests)


@dataclass
class Pools(Router):
    """Two routers take turns over pools that change their form, and look at a shared board now and then."""

    def bind(self, replicas, rng):
        super().bind(replicas, rng)
        self.looks = 0
        self.arrivals = 0

    def route(self, request, replicas, now):
        self.arrivals += 1
        form = (self.arrivals - 1) // 20 % 4
        if self.arrivals % 20 == 1:  # the whole, a part of it, the very same whole, its reverse, which shrinks
            self.pool = (replicas, replicas[2:], replicas, replicas[::-1])[form]
        elif form == 3 and self.arrivals % 20 == 10:
            del self.pool[0]
        board = LoadBoard.over(self.pool)
        if self.arrivals % 3 == 0:
            board.count()
            assert board.outstanding.tolist() == [view.outstanding for view in self.pool]
        if self.arrivals % 4 == 0:
            board.watch_kv()
            board.refresh(now)
            shown = np.array([board.outstanding, board.prefill, board.generated, board.free_tokens]).T.tolist()
            assert shown == [
                [v.outstanding, v.prefill_tokens, v.generated_tokens, v.free_blocks * v.block_size] for v in self.pool
            ]
            self.looks += 1
        assert LoadBoard.over(self.pool) is board, "the board of one sequence is shared"
        return self.arrivals % len(replicas)


@pytest.mark.parametrize("macro", [True, False])
def test_a_board_shows_what_the_views_show_however_its_sequence_changes(macro):
    router = Pools()
    serve(workload(7, n=400, rate=25.0), Sarathi, replicas=5, router=router, num_blocks=300, macro=macro)
    assert router.looks == 100


def test_equal_loads_take_turns_in_an_array_as_in_a_list():
    rng = np.random.default_rng(3)
    routers = [LeastRequests(), LeastRequests()]
    for router in routers:
        router.bind(6, rng)
    for _ in range(300):
        loads = rng.integers(0, 3, 6)
        assert routers[0].least(loads.astype(float)) == routers[1].least(loads.tolist())
