"""LiveExecutor without torch: its clocks, its padding, its errors."""

from __future__ import annotations

import time

import numpy as np
import pytest

from llmsim.core.batch import Batch
from llmsim.core.kvcache import PagedKVCache
from llmsim.core.request import Request
from llmsim.engine.cluster import Cluster
from llmsim.engine.recorder import Recorder
from llmsim.errors import CapacityError, SchedulerError
from llmsim.executors.live import SCRATCH_PAGES, LiveExecutor, wait_until
from llmsim.routers.round_robin import RoundRobin
from llmsim.schedulers.naive import Naive
from llmsim.schedulers.sarathi import Sarathi
from tests.executors.runners import FakeRunner

SECONDS = 0.002
pytestmark = pytest.mark.alone


def serve(requests, *, clock="skip", policy=None, seconds=SECONDS, num_blocks=70):
    runner = FakeRunner(num_blocks, page_size=4, seconds=seconds)
    kv = PagedKVCache(num_blocks, 4)
    executor = LiveExecutor(runner, kv, clock=clock)
    router = RoundRobin()
    router.bind(1, np.random.default_rng(0))
    cluster = Cluster(router)
    policy = policy or Sarathi(chunk_size=32)
    policy.bind(kv, 200)
    cluster.add_replica(policy, executor, kv, Recorder(), macro=False)
    began = time.perf_counter()
    cluster.run(requests)
    return executor, time.perf_counter() - began


def far_apart():
    return [Request(i, i * 400_000_000, 10, 3) for i in range(3)]


def test_idle_time_is_skipped():
    executor, real = serve(far_apart())
    assert executor.timings[-1].end_ns > 800_000_000
    assert real < 0.4
    assert [t.start_ns for t in executor.timings if t.start_ns % 400_000_000 == 0] == [0, 400_000_000, 800_000_000]


def test_the_wall_clock_lives_through_idle_time():
    executor, real = serve(far_apart(), clock="wall")
    assert real >= 0.8
    assert executor.timings[-1].end_ns / 1e9 == pytest.approx(real, abs=0.1)


def test_while_busy_every_nanosecond_of_the_machine_is_in_some_iteration():
    requests = [Request(i, 0, 10, 30) for i in range(4)]
    executor, real = serve(requests)
    for before, after in zip(executor.timings, executor.timings[1:], strict=False):
        assert after.start_ns == before.end_ns
    lasted = (executor.timings[-1].end_ns - executor.timings[0].start_ns) / 1e9
    assert lasted == pytest.approx(real, abs=0.05)
    assert lasted >= SECONDS * len(executor.timings)
    for timing in executor.timings:
        assert SECONDS * 1e9 <= timing.forward_ns <= timing.step_ns <= timing.end_ns - timing.start_ns


def test_a_rectangular_batch_really_is_one():
    requests = [Request(0, 0, 5, 9), Request(1, 0, 17, 2), Request(2, 0, 9, 4)]
    executor, _ = serve(requests, policy=Naive(batch_size=3), seconds=0.0)
    first, *later = executor.runner.steps
    assert [len(row.tokens) for row in first] == [17] * 3
    assert [row.unread for row in first] == [12, 0, 8]
    for n, rows in enumerate(later, start=1):
        assert [row.keys for row in rows] == [17 + n] * 3  # a sequence that is done runs on
    assert len(later) == 8


def test_scratch_pages_are_nobodys():
    executor, _ = serve([Request(0, 0, 5, 9), Request(1, 0, 17, 2)], policy=Naive(batch_size=2), seconds=0.0)
    pages = np.concatenate([row.pages for rows in executor.runner.steps for row in rows])
    assert (pages >= 70).any()
    assert pages.max() < 70 + SCRATCH_PAGES


def test_padding_that_is_no_rectangle_is_refused():
    executor, _ = serve([Request(0, 0, 5, 2)], seconds=0.0)
    batch = Batch(0)
    request = Request(9, 0, 8, 3)
    request.generated = 1
    batch.add_decode(request)
    executor.kv.allocate(request, 9)
    executor.kv.pages(request, 0, 8)
    batch.pad_decodes(2, 10)
    with pytest.raises(SchedulerError, match="no rectangle"):
        executor.execute(batch, 10**12, 1)


def test_waiting_ends_on_time():
    at = time.perf_counter_ns() + 7_000_000
    wait_until(at)
    assert 0 <= time.perf_counter_ns() - at < 50_000_000


def test_block_ids_are_handed_out_once_and_come_back():
    kv = PagedKVCache(8, 4, watermark=0)
    a, b = Request(0, 0, 14, 1), Request(1, 0, 9, 1)
    kv.allocate(a, 14)
    kv.allocate(b, 9)
    ids = [*kv.pages(a, 0, 14).tolist(), *kv.pages(b, 0, 5).tolist(), *kv.pages(b, 5, 4).tolist()[2:]]
    assert len(set(ids)) == 7
    kv.release(a)
    with pytest.raises(SchedulerError, match="only 0 tokens"):
        kv.pages(a, 14, 1)
    c = Request(2, 0, 20, 1)
    kv.allocate(c, 20)
    assert len(set(kv.pages(c, 0, 20).tolist()) | set(ids[4:])) == 8
    with pytest.raises(SchedulerError, match="taken only 8 blocks"):
        kv.pages(b, 9, 8)


def test_a_sequence_that_outgrows_the_model_is_refused(monkeypatch):
    monkeypatch.setattr(FakeRunner, "__init__", short(FakeRunner.__init__))
    with pytest.raises(CapacityError, match="has grown to 31 tokens, but small is built for 30"):
        serve([Request(0, 0, 20, 40)], seconds=0.0)


def short(make):
    def build(self, *args, **options):
        make(self, *args, **options)
        self.max_positions = 30

    return build


def test_what_is_done_aside_is_in_no_iteration():
    runner = FakeRunner(70, page_size=4, seconds=SECONDS)
    kv = PagedKVCache(70, 4)
    seen = []

    def aside(now):
        seen.append(now)
        wait_until(time.perf_counter_ns() + 20_000_000)

    executor = LiveExecutor(runner, kv, aside=aside)
    request = Request(0, 0, 8, 3)
    kv.allocate(request, 8)
    end = 0
    for _ in range(5):
        batch = Batch(end)
        batch.add_prefill(request, 1)
        (end,) = executor.execute(batch, end, 1)
        request.computed += 1
    assert seen == [timing.start_ns for timing in executor.timings]
    assert end < 5 * (SECONDS * 1e9 + 10_000_000)
