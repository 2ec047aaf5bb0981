"""The real executor computes what a dense reference computes, whatever a policy does to chunks, batches and blocks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from llmsim.core.kvcache import PagedKVCache  # noqa: E402
from llmsim.core.request import Request  # noqa: E402
from llmsim.engine.cluster import Cluster  # noqa: E402
from llmsim.engine.recorder import Recorder  # noqa: E402
from llmsim.errors import SchedulerError  # noqa: E402
from llmsim.executors.device import DeviceSpec  # noqa: E402
from llmsim.executors.live import SCRATCH_PAGES, LiveExecutor  # noqa: E402
from llmsim.executors.packed_linear import PackedLinear  # noqa: E402
from llmsim.executors.runner import ModelRunner  # noqa: E402
from llmsim.executors.step import Row, Step  # noqa: E402
from llmsim.routers.round_robin import RoundRobin  # noqa: E402
from llmsim.schedulers.sarathi import Sarathi  # noqa: E402
from tests.engine.build import POLICIES  # noqa: E402
from tests.executors.dense import dense, relative  # noqa: E402
from tests.executors.shapes import SMALL  # noqa: E402

pytestmark = pytest.mark.live
LIMIT = 1e-3
SPEC = DeviceSpec(page_size=4)


class Watched(ModelRunner):
    """Keeps the logits of every row, and the KV that its pages held after the step."""

    def step(self, rows):
        self.seen = getattr(self, "seen", [])
        with torch.inference_mode():
            logits = self.logits(rows)
        for row, line in zip(rows, logits, strict=True):
            real = row.start + len(row.tokens) - row.unread
            size = self.spec.page_size
            kv = torch.stack([layer[torch.from_numpy(row.pages).long()] for layer in self.attention.kv])
            flat = kv.transpose(1, 2).reshape(len(self.attention.kv), 2, -1, *kv.shape[4:])  # layers, 2, keys, heads, d
            self.seen.append((line, flat[:, :, :real].clone(), real, len(row.pages) * size))
        return super().step(rows)


def serve(make, *, num_blocks, count=14, seed=3, semantics=True):
    """Random requests through a policy on the small model; returns executor, requests and who was in which step."""
    runner = Watched(SMALL, SPEC, num_blocks + SCRATCH_PAGES)
    kv = PagedKVCache(num_blocks, SPEC.page_size)
    executor = LiveExecutor(runner, kv, seed=seed)
    order: list[int] = []
    rows = executor._rows
    executor._rows = lambda batch: noted(order, rows(batch))
    draw = np.random.default_rng(seed)
    requests = [Request(i, i * 2_000_000, int(draw.integers(1, 60)), int(draw.integers(1, 24))) for i in range(count)]
    router = RoundRobin()
    router.bind(1, draw)
    cluster = Cluster(router)
    policy = make()
    policy.bind(kv, 128)
    cluster.add_replica(
        policy, executor, kv, Recorder(), macro=False, first_token_at_prefill_end=semantics,
        regenerate_output=not semantics,
    )  # fmt: skip
    cluster.run(requests)
    return executor, requests, order


def noted(order, held):
    rows, requests = held
    order += [request.id for request in requests] + [-1] * (len(rows) - len(requests))
    return held


def weights_of(model):
    """The state dict, with packed weights unpacked."""
    packed = {f"{name}.weight": part.weight for name, part in model.named_modules() if isinstance(part, PackedLinear)}
    return model.state_dict() | packed


def check(executor, requests, order):
    """Every row's logits and KV against one dense pass over the request's whole sequence."""
    runner = executor.runner
    weights = weights_of(runner.model)
    reference = {}
    for request in requests:
        length = request.prompt_tokens + request.generated
        tokens = executor.tokens[request.id][:length].tolist()
        reference[request.id] = dense(SMALL, weights, tokens)
    worst = 0.0
    for who, (logits, kv, real, _) in zip(order, runner.seen, strict=True):
        if who < 0:
            continue
        true_logits, true_kv = reference[who]
        worst = max(worst, relative(logits, true_logits[real - 1]), relative(kv, true_kv[:, :, :real]))
    return worst


@pytest.mark.parametrize("semantics", [True, False], ids=["vllm", "slai"])
@pytest.mark.parametrize("policy", POLICIES)
def test_logits_and_kv_are_those_of_the_dense_reference(policy, semantics):
    executor, requests, order = serve(POLICIES[policy], num_blocks=70, semantics=semantics)
    assert all(request.finish_ns > 0 for request in requests)
    assert check(executor, requests, order) < LIMIT
    assert executor.kv.free_blocks == executor.kv.num_blocks
    assert sorted(executor.kv._unused) == list(range(70))


def test_preempted_and_resumed_sequences_are_right_too():
    executor, requests, order = serve(lambda: Sarathi(chunk_size=24), num_blocks=36, count=16)
    assert sum(request.preemptions for request in requests) >= 3
    assert check(executor, requests, order) < LIMIT


def test_blocks_that_are_mixed_up_are_found(monkeypatch):
    right = PagedKVCache.pages

    def wrong(self, request, start, tokens):
        pages = right(self, request, start, tokens)
        return pages[::-1].copy() if len(pages) > 3 else pages

    monkeypatch.setattr(PagedKVCache, "pages", wrong)
    executor, requests, order = serve(lambda: Sarathi(chunk_size=24), num_blocks=70)
    assert check(executor, requests, order) > 10 * LIMIT


class Forgets(Sarathi):
    """Gives a decode's blocks back while it runs on."""

    def schedule(self, now):
        batch = super().schedule(now)
        if self.decodes.size and batch.decodes is not None:
            victim = next(iter(self.decodes.members))
            held, victim.blocks = victim.blocks, 0
            self.kv.release(victim)
            self.kv.free_blocks -= held
            victim.blocks = held
            self.kv.free_blocks += held
        return batch


class Greedy(Sarathi):
    """Lets decodes grow without taking blocks."""

    def add_all_decodes(self, batch):
        batch.add_decodes(self.decodes)


def test_a_policy_that_gives_away_the_past_is_stopped():
    with pytest.raises(SchedulerError, match="released its blocks"):
        serve(Forgets, num_blocks=70)


def test_a_policy_that_takes_no_blocks_is_stopped():
    with pytest.raises(SchedulerError, match="allocate before scheduling"):
        serve(Greedy, num_blocks=70)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "tied"])
def test_every_family_in_float64(family):
    config = dataclasses.replace(
        SMALL, qk_norm=family == "qwen3", attention_bias=family == "qwen2", tied_embeddings=family == "tied"
    )
    runner = ModelRunner(config, DeviceSpec(dtype="float64", page_size=4), 64)
    tokens = np.random.default_rng(1).integers(97, size=50)
    pages = np.random.default_rng(2).permutation(64).astype(np.int32)
    logits, _ = dense(config, weights_of(runner.model), tokens.tolist())
    for start, end in ((0, 7), (7, 8), (8, 40), (40, 41), (41, 50)):
        ours = runner.logits([Row(tokens[start:end], start, pages)])
        assert relative(ours[0], logits[end - 1]) < 1e-12


def test_padding_changes_no_logits():
    runner = ModelRunner(SMALL, DeviceSpec(dtype="float64", page_size=4), 64)
    tokens = np.random.default_rng(1).integers(97, size=30)
    pages = np.arange(60, dtype=np.int32)
    want, _ = dense(SMALL, weights_of(runner.model), tokens.tolist())
    padded = Row(np.concatenate([tokens[:20], np.zeros(9, dtype=np.int64)]), 0, pages, 0, 9)
    assert relative(runner.logits([padded])[0], want[19]) < 1e-12
    runner.logits([Row(tokens[20:29], 20, pages)])
    hidden = Row(tokens[29:30], 29, pages, hidden=25)
    assert relative(runner.logits([hidden])[0], want[29]) < 1e-12
    assert Step.pack([hidden], 4).decodes == 0


def test_sampling_follows_temperature_and_seed():
    rows = [Row(np.arange(9), 0, np.arange(9, dtype=np.int32))] * 4
    greedy = ModelRunner(SMALL, DeviceSpec(page_size=4, temperature=0.0), 64)
    assert greedy.step(rows).tokens == greedy.logits(rows).argmax(-1).tolist()
    first, again, other = (ModelRunner(SMALL, DeviceSpec(page_size=4, seed=s), 64).step(rows).tokens for s in (0, 0, 1))
    assert first == again
    assert first != other
