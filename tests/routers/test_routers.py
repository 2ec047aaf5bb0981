"""Routers: balance, no peeking, what they see in the middle of a macro-step, and who wins on unequal replicas."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from llmsim.core.kvcache import KVCache
from llmsim.engine.cluster import Cluster
from llmsim.engine.recorder import Recorder
from llmsim.errors import ConfigError
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.routers.base import Router
from llmsim.routers.least_work import LeastWork
from llmsim.runs.simulation import simulate
from llmsim.schedulers.sarathi import Sarathi
from llmsim.spec import registry
from llmsim.spec.run_spec import load_runs
from llmsim.testing import check_router
from tests.engine.build import POLICIES, LineCost, serve, workload
from tests.engine.observe import requests_of

NAMES = registry.names("router")


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_router_conforms(name):
    check_router(registry.resolve("router", name))


def test_a_router_that_reads_the_output_length_is_caught():
    class Cheat(Router):
        def route(self, request, replicas, now):
            return request.output_tokens % 3

    with pytest.raises(AssertionError, match="may not know the output length"):
        check_router(Cheat)


def test_a_router_that_names_no_replica_is_caught():
    class Lost(Router):
        def route(self, request, replicas, now):
            return 7

    with pytest.raises(AssertionError, match="no replica 7"):
        check_router(Lost)


@dataclass
class Witness(Router):
    """Sends in turn, and notes everything it can see."""

    def bind(self, replicas, rng):
        super().bind(replicas, rng)
        self.seen = []

    def route(self, request, replicas, now):
        names = ("outstanding", "waiting", "running", "free_blocks", "prefill_tokens", "generated_tokens")
        self.seen.append((now, *(getattr(view, name) for view in replicas for name in names)))
        return len(self.seen) % self.replicas


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("num_blocks", [250, 2000])
def test_views_in_the_middle_of_a_macro_step_show_what_single_steps_show(policy, num_blocks):
    looks = []
    for macro in (True, False):
        witness = Witness()
        requests = workload(4, n=80, rate=3.0)
        serve(requests, POLICIES[policy], replicas=2, router=witness, macro=macro, num_blocks=num_blocks)
        looks.append(witness.seen)
    assert looks[0] == looks[1]
    assert any(row[4] != num_blocks for row in looks[0]), "the replicas were never seen at work"


def test_views_count_prompt_tokens_and_emitted_tokens_exactly():
    """One prompt of 600 tokens in chunks of 256, then a look between its first decodes."""
    witness = Witness()
    requests = requests_of([(0, 600, 50), (20_000_000, 10, 1), (200_000_000, 10, 1)])
    serve(requests, lambda: Sarathi(chunk_size=256), replicas=2, router=witness, num_blocks=2000)
    at_20_ms, at_200_ms = witness.seen[1][1:], witness.seen[2][1:]
    assert at_20_ms[6:] == (1, 0, 1, 2000 - 38, 600 - 2 * 256, 0)  # the second replica got the first request
    done = at_200_ms[11]
    assert at_200_ms[6:] == (1, 0, 1, 2000 - -(-(600 + done) // 16), 0, done)
    assert 1 < done < 50


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("random", "power_of_two")])
def test_equal_replicas_get_equal_shares_of_equal_requests(name):
    requests = requests_of([(i * 5_000_000, 200, 40) for i in range(120)])
    serve(requests, Sarathi, replicas=4, router=_priced(registry.build("router", name)), num_blocks=2000)
    counts = Counter(r.replica for r in requests)
    assert max(counts.values()) - min(counts.values()) <= 2, counts


def _priced(router):
    """Views without a batch-time model cannot price work: give the test's model to the one router that asks."""
    return router if not isinstance(router, LeastWork) else _WithCost()


class _WithCost(LeastWork):
    def route(self, request, replicas, now):
        for view in replicas:
            view._cost = LineCost()
        return super().route(request, replicas, now)


def test_random_is_uniform_and_independent_of_the_load():
    requests = requests_of([(0, 10, 1)] * 4000)
    serve(requests, Sarathi, replicas=4, router=registry.build("router", "random"), num_blocks=9000)
    counts = Counter(r.replica for r in requests)
    # A chi-square of 3 degrees of freedom exceeds 16.3 in one of 1,000 uniform draws.
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 16.3


def test_two_choices_keep_queues_shorter_than_one_random_choice():
    longest = {}
    for name in ("random", "power_of_two"):
        router = registry.build("router", name)
        requests = workload(9, n=800, rate=45.0)
        serve(requests, Sarathi, replicas=8, router=router, num_blocks=900)
        longest[name] = np.percentile([r.prefill_end_ns - r.arrival_ns for r in requests], 95)
    assert longest["power_of_two"] < longest["random"]


class _Slow(LineCost):
    def femtoseconds(self, work):
        return 3 * super().femtoseconds(work)

    def decode_slope(self, work):
        return 3 * super().decode_slope(work)


def _mixed_cluster(router: Router, requests) -> float:
    """Two fast replicas and one that is three times slower; mean latency in ns."""
    router.bind(3, np.random.default_rng(1))
    cluster = Cluster(router)
    for cost in (LineCost(), LineCost(), _Slow()):
        kv = KVCache(2000)
        scheduler = Sarathi(chunk_size=256)
        scheduler.bind(kv, 3000)
        cluster.add_replica(scheduler, SimulatedExecutor(cost), kv, Recorder(), cost=cost)
    cluster.run(requests)
    return float(np.mean([r.finish_ns - r.arrival_ns for r in requests]))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_least_work_beats_round_robin_and_least_requests_on_unequal_replicas(seed):
    mean = {
        name: _mixed_cluster(registry.build("router", name), workload(seed, n=400, rate=40.0))
        for name in ("round_robin", "least_requests", "least_work")
    }
    assert mean["least_work"] < 0.8 * mean["round_robin"]
    assert mean["least_work"] < mean["least_requests"]


def test_least_work_without_a_batch_time_model_says_so():
    with pytest.raises(ConfigError, match="least_tokens instead"):
        serve(requests_of([(0, 10, 5)] * 2), Sarathi, replicas=2, router=LeastWork())


def test_expected_outputs_are_learnt_from_answers():
    router = LeastWork(expected_output_tokens=100, learn_from=5)
    router.bind(2, np.random.default_rng(0))
    for request in requests_of([(0, 10, n) for n in (10, 20, 30, 40)]):
        request.generated = request.output_tokens
        router.answered(request)
    assert router.output_tokens == 100
    router.answered(request)
    assert router.output_tokens == pytest.approx((10 + 20 + 30 + 40 + 40) / 5)


GROUPS = {
    "workload": {"trace": "sharegpt4", "num_requests": 300, "arrivals": {"kind": "poisson", "rate": 4.0}},
    "calibration": "a100/llama-3-8b",
    "cluster": {
        "router": "least_work",
        "groups": [
            {"replicas": 1},
            {
                "replicas": 2,
                "calibration": "rtx-6000-ada/mistral-7b",
                "scheduler": "sarathi,chunk_size=256",
                "model": "llama-3-8b",
            },
        ],
    },
}


def test_a_cluster_of_different_gpus_is_described_in_yaml_and_reported_by_group():
    spec = load_runs(mapping=GROUPS)[0]
    assert spec.cluster.replicas == 3
    result = simulate(spec)
    counts = result.requests["replica"].value_counts()
    assert counts[0] > counts[1]  # the A100 is the faster one
    assert counts[0] > counts[2]
    names = [report["name"] for report in result.summary["calibrations"]]
    assert names == ["a100/llama-3-8b", "rtx-6000-ada/mistral-7b"]
    assert result.summary["kv"]["num_blocks"] == [26502, 14733, 14733]
    assert result.label == "sarathi + sarathi,chunk_size=256"
    assert len(result.manifest["calibrations"]) == 2


def test_groups_of_equal_replicas_are_the_plain_cluster():
    plain = load_runs(mapping={**GROUPS, "cluster": {"replicas": 3, "router": "least_tokens"}})[0]
    grouped = {"router": "least_tokens", "groups": [{"replicas": 2}, {"replicas": 1}]}
    summaries = [simulate(spec).summary for spec in (plain, load_runs(mapping={**GROUPS, "cluster": grouped})[0])]
    assert summaries[0] == summaries[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("least_tokens,expected_output_tokens=0", "expected_output_tokens must be at least 1 but got 0"),
        ("least_work,learn_from=0", "learn_from must be at least 1 answer, or none, but got 0"),
        ("least_work,decode_batch=0", "decode_batch must be at least 1 but got 0"),
    ],
)
def test_options_that_cannot_mean_anything_are_refused(line, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("router", line)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"replicas": 5, "groups": [{"replicas": 2}]}, "groups hold 2 replicas but replicas is 5"),
        ({"groups": [{"replicas": 0}]}, "replicas must be at least 1"),
        ({"groups": [{"engine": {"first_token_at_prefill_end": False}}]}, "must be the same in all groups"),
        ({"groups": [{"gpu": "h200"}]}, "no option 'gpu'"),
    ],
)
def test_a_cluster_that_makes_no_sense_is_refused(cluster, message):
    with pytest.raises(ConfigError, match=message):
        load_runs(mapping={**GROUPS, "cluster": cluster})
