"""The cluster around the replicas: horizons, closed loops, what can never be served, what is refused."""

from __future__ import annotations

import pytest

from llmsim.core.batch import Batch, Work
from llmsim.core.kvcache import KVCache
from llmsim.core.ramp import Ramp
from llmsim.core.request import NEVER
from llmsim.costs.base import CostModel
from llmsim.errors import CalibrationError, CapacityError, SchedulerError, StalledError
from llmsim.executors.replay import ReplayExecutor
from llmsim.executors.simulated import SimulatedExecutor
from llmsim.schedulers.base import Scheduler
from llmsim.schedulers.orca import Orca
from llmsim.schedulers.sarathi import Sarathi
from llmsim.schedulers.slai import Slai
from tests.engine.build import POLICIES, GridCost, serve, workload
from tests.engine.observe import Batches, requests_of


@pytest.mark.parametrize("macro", [True, False])
def test_no_iteration_starts_at_the_horizon_or_later_and_the_one_in_flight_completes(macro):
    requests = workload(3, n=60, rate=4.0)
    horizon = 7_003_000_000
    cluster = serve(requests, Sarathi, horizon_ns=horizon, macro=macro, num_blocks=2000)
    table = cluster.replicas[0].recorder.table()
    assert table["start_ns"].max() < horizon <= table["end_ns"].max()
    arrived = [r for r in requests if r.replica >= 0]
    assert all(r.arrival_ns <= horizon for r in arrived)
    assert len(arrived) < len(requests)
    unfinished = [r for r in arrived if r.finish_ns == NEVER]
    assert unfinished
    assert all(0 <= r.generated < r.output_tokens for r in unfinished)


def test_a_closed_loop_never_has_more_outstanding_than_asked():
    requests = workload(5, n=50)
    serve(requests, Sarathi, max_concurrency=4, replicas=2, num_blocks=2000)
    events = sorted([(r.arrival_ns, 1) for r in requests] + [(r.finish_ns, -1) for r in requests])
    level = peak = 0
    for _, change in events:
        level += change
        peak = max(peak, level)
    assert peak == 4
    assert sum(r.replica >= 0 for r in requests) == 50


@pytest.mark.parametrize("policy", POLICIES)
def test_every_block_comes_back_and_every_request_finishes_under_memory_pressure(policy):
    requests = workload(11, n=80, rate=20.0)
    cluster = serve(requests, POLICIES[policy], num_blocks=200)
    assert all(r.finish_ns > r.arrival_ns for r in requests)
    assert all(replica.kv.used_blocks == 0 for replica in cluster.replicas)


def test_a_request_that_outgrows_the_cache_is_refused_before_the_run():
    with pytest.raises(CapacityError, match=r"request 1 grows to 900 tokens .* but 50 KV blocks of 16 serve 784"):
        serve(requests_of([(0, 10, 5), (0, 400, 500)]), Sarathi, num_blocks=50)


def test_a_reservation_larger_than_the_cache_is_refused_before_the_run():
    with pytest.raises(CapacityError, match="reserves max_model_len=3000 tokens a request, 188 KV blocks"):
        serve(requests_of([(0, 10, 5)]), Orca, num_blocks=100)


def test_a_prompt_longer_than_the_model_is_rejected_with_its_reason_and_the_rest_is_served():
    requests = requests_of([(0, 10, 5), (0, 5000, 5), (0, 10, 5)])
    serve(requests, Sarathi)
    assert [bool(r.rejected) for r in requests] == [False, True, False]
    assert "prompt_tokens=5000 is more than max_model_len=3000" in requests[1].rejected
    assert requests[2].finish_ns > 0


class Refuser(Scheduler):
    """Never forms a batch."""

    def schedule(self, now):
        return Batch(now)


def test_requests_that_nobody_serves_are_an_error_not_a_shorter_table():
    with pytest.raises(StalledError, match="2 of 2 requests can never be served; the first is id 0"):
        serve(requests_of([(0, 10, 5), (5, 10, 5)]), Refuser)


def test_a_policy_that_goes_round_in_circles_is_an_error_not_a_hang():
    """SLAI's decodes preempt themselves: two that fill a tiny cache, in the engine without a token a prompt."""
    requests = requests_of([(0, 240, 300), (0, 240, 300)] * 2)
    with pytest.raises(StalledError, match="20000 preemptions without a request finishing"):
        serve(
            requests,
            lambda: Slai(order="fcfs"),
            num_blocks=40,
            first_token_at_prefill_end=False,
            regenerate_output=True,
            max_model_len=600,
        )


class Grabber(Scheduler):
    """Allocates without asking."""

    def schedule(self, now):
        batch = Batch(now)
        while self.waiting:
            request = self.waiting.popleft()
            self.kv.allocate(request, request.prefill_tokens)
            self.prefilling.append(request)
            batch.add_prefill(request, request.prefill_tokens)
        return batch


def test_a_policy_that_takes_blocks_that_are_not_free_is_stopped():
    with pytest.raises(SchedulerError, match="asked for 50 KV blocks but 10 of 60 are free"):
        serve(requests_of([(0, 800, 1), (0, 800, 1)]), Grabber, num_blocks=60)


class OneByOne(Scheduler):
    """The plain rung: decodes listed one by one, no set."""

    def bind(self, kv, max_model_len):
        super().bind(kv, max_model_len)
        self.running = []

    def schedule(self, now):
        batch = Batch(now)
        for request in self.running:
            self.kv.allocate(request, request.length)
            batch.add_decode(request)
        if self.waiting:
            request = self.waiting.popleft()
            self.kv.allocate(request, request.prefill_tokens)
            self.prefilling.append(request)
            batch.add_prefill(request, request.prefill_tokens)
        return batch

    def start_decoding(self, request):
        self.running.append(request)

    def finished(self, request):
        super().finished(request)
        if request in self.running:
            self.running.remove(request)


def test_a_policy_may_list_its_decodes_itself():
    requests = requests_of([(0, 30, 4), (1, 30, 3)])
    cluster = serve(requests, OneByOne, cost=GridCost())
    assert [r.generated for r in requests] == [4, 3]
    assert [r.finish_ns for r in requests] == [20_000_000, 20_000_000]
    assert requests[0].token_ranges == [-1, -4]  # iterations 0 to 3
    assert cluster.replicas[0].kv.used_blocks == 0


def test_a_recorded_run_replayed_gives_the_same_batches():
    for policy in ("sarathi_fcfs", "vllm_v1", "vllm_v0"):
        seen, again = Batches(), Batches()
        cluster = serve(workload(2, n=40), POLICIES[policy], observer=seen, macro=False)
        ends = cluster.replicas[0].recorder.table()["end_ns"].tolist()
        requests = workload(2, n=40)
        replayed = serve(requests, POLICIES[policy], observer=again, executor=ReplayExecutor(ends))
        assert again.batches == seen.batches
        assert replayed.replicas[0].recorder.table()["end_ns"].tolist() == ends


def test_a_replay_that_parts_from_its_recording_is_an_error():
    with pytest.raises(StalledError, match="the recording has no such iteration"):
        serve(requests_of([(0, 10, 50)]), Sarathi, executor=ReplayExecutor([10**7, 2 * 10**7]))


class Free(CostModel):
    """Prices everything at nothing."""

    def seconds(self, work: Work) -> float:
        return 0.0


def test_a_batch_that_takes_no_time_is_an_error():
    with pytest.raises(CalibrationError, match="must take at least 1 ns"):
        serve(requests_of([(0, 10, 5)]), Sarathi, cost=Free())


@pytest.mark.parametrize("growth", [0, 7, 123_456_789])
def test_a_ramp_is_the_sequence_it_stands_for(growth):
    first, carry, n = 20_000_000_017, 999_999, 300
    ramp = Ramp(5, carry, first, growth, n)
    total, ends = carry, []
    for i in range(n):
        total += first + i * growth
        ends.append(5 + total // 10**6)
    assert list(ramp) == ends
    assert ramp[-1] == ends[-1]
    assert ramp[3:6] == ends[3:6]
    for now in (0, ends[0] - 1, ends[0], ends[0] + 1, ends[120], ends[120] + 1, ends[-1], ends[-1] - 1):
        kept = next(i for i, end in enumerate(ends) if end >= now) + 1
        assert list(ramp.until(now)) == ends[:kept]


def test_sub_nanosecond_prices_add_up_over_consecutive_iterations():
    class Odd(CostModel):
        def seconds(self, work):
            return 1.0000004e-6  # 1000.0004 ns

    executor = SimulatedExecutor(Odd())
    now = 0
    for _ in range(5000):
        (now,) = executor.execute(Batch(now), now, 1)
    assert now == 5000 * 1000 + 2


def test_kv_cache_refuses_nonsense():
    for options in ({"num_blocks": 0}, {"num_blocks": 5, "block_size": 0}, {"num_blocks": 5, "watermark": 1.0}):
        with pytest.raises(Exception, match="must be"):
            KVCache(**options)
