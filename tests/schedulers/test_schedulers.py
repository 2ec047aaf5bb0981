"""Every policy keeps the rules, and behaves as its original in the cases that were tried on the originals."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import pytest

from llmsim.core.kvcache import KVCache
from llmsim.errors import CapacityError, ConfigError, SchedulerError
from llmsim.schedulers.continuous import ContinuousBatching
from llmsim.schedulers.faster_transformer import FasterTransformer
from llmsim.schedulers.sarathi import Sarathi, chunk_schedule
from llmsim.schedulers.simple_chunking import SimpleChunking
from llmsim.schedulers.vllm_v0 import VllmV0
from llmsim.schedulers.vllm_v1 import VllmV1
from llmsim.spec import registry
from llmsim.testing import check_scheduler
from llmsim.testing.conformance import CASES
from tests.effort import cases
from tests.engine.build import POLICIES, serve
from tests.engine.observe import Batches, requests_of

SOME = cases(CASES, 7)
"""By default seven of the eighteen: every load and pool, with and without ties, first tokens early and late."""


@pytest.mark.parametrize("name", registry.names("scheduler"))
def test_every_registered_policy_conforms(name):
    check_scheduler(registry.resolve("scheduler", name), cases=SOME)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_variant_conforms(policy):
    check_scheduler(POLICIES[policy], cases=SOME)


def test_a_policy_that_reads_the_output_length_is_caught():
    class Cheat(Sarathi):
        def order_waiting(self, now):
            self.waiting[0].output_tokens  # noqa: B018

    with pytest.raises(AssertionError, match="may not know the output length"):
        check_scheduler(Cheat)


def test_a_policy_that_promises_too_many_repetitions_is_caught():
    class Liar(Sarathi):
        def steady_iterations(self, batch):
            return 50 if not batch.prefills else 1

    with pytest.raises((AssertionError, Exception)):
        check_scheduler(Liar)


class DemoteLate(ContinuousBatching):
    """Oldest first, but who has waited for two seconds goes to the back: the order changes while nothing happens."""

    def order_waiting(self, now):
        late = 2_000_000_000
        key = lambda r: (now > r.arrival_ns + late, r.arrival_ns, r.id)  # noqa: E731
        self.waiting = deque(sorted(self.waiting, key=key))


def test_a_hook_that_looks_at_the_time_is_asked_at_every_iteration():
    check_scheduler(DemoteLate)


def test_a_hook_that_claims_to_be_steady_and_is_not_is_caught():
    class Claims(DemoteLate):
        steady_hooks = True

    with pytest.raises(AssertionError, match="differ"):
        check_scheduler(Claims)


def test_memory_taken_ahead_of_growth_is_an_error_not_a_leak():
    class Greedy(Sarathi):
        def start_decoding(self, request):
            self.kv.allocate(request, request.length + 200)
            super().start_decoding(request)

    with pytest.raises(SchedulerError, match="holds 14 KV blocks for 21 tokens"):
        serve(requests_of([(0, 20, 50)]), Greedy)


def test_vllm_v1_judges_what_fits_by_its_own_watermark():
    """999 blocks after the null block: 15,984 tokens fit without a watermark, 12,784 under one of 0.2."""
    requests = requests_of([(0, 15_000, 900)])
    serve(requests, VllmV1, num_blocks=1000, max_model_len=16_000)
    assert requests[0].generated == 900
    with pytest.raises(CapacityError, match="12784 at most"):
        serve(requests_of([(0, 15_000, 100)]), lambda: VllmV1(watermark=0.2), num_blocks=1000, max_model_len=16_000)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rad,prefills_per_cycle=0", "prefills_per_cycle must be at least 1"),
        ("rad,chunk=0", "chunk must be at least 1"),
        ("vllm_v1,watermark=-1", r"watermark is a share and must be in \[0, 1\)"),
        ("vllm_v1,watermark=.nan", "watermark is a share"),
        ("slai,memory_limit=-1", "memory_limit must be a finite number of at least 0"),
        ("slai,default_tbt_s=.nan", "default_tbt_s must be a finite number"),
        ("slai,below_memory_limit_offset=.nan", "below_memory_limit_offset must be a finite number"),
        ("niyama,execution_threshold=.nan", "execution_threshold must be a finite number"),
        ("slai,order=lifo", "order must be 'fcfs' or 'spf' but got 'lifo'"),
        ("niyama,mode=lifo", "mode must be one of fcfs"),
        ("niyama,tier_deadlines_s=5", "tier_deadlines_s must be a list of seconds"),
        ("naive,timeout_s=.inf", "timeout_s must be a finite number"),
    ],
)
def test_options_that_cannot_mean_anything_are_refused(line, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("scheduler", line)


def test_sarathi_fills_the_chunk_around_the_decodes():
    """100 decodes and a prompt of 2,000: 412 x 4 + 352 tokens, so the prompt takes five steps."""
    seen = Batches()
    requests = requests_of([(0, 1, 900)] * 100 + [(5_000_000_000, 2000, 5)])
    serve(requests, lambda: Sarathi(chunk_size=512), num_blocks=9000, observer=seen, macro=False)
    assert [chunk for batch in seen.batches for i, chunk in batch.prefills if i == 100] == [412, 412, 412, 412, 352]


def test_sarathi_preempts_the_youngest_and_regenerates_as_the_original():
    """15 requests P=511, D=400 in 513 blocks, chunk 512: who is preempted, and how often each decodes."""
    seen = Batches()
    requests = requests_of([(0, 511, 400)] * 15)
    serve(
        requests,
        Sarathi,
        num_blocks=513,
        observer=seen,
        macro=False,
        first_token_at_prefill_end=False,
        regenerate_output=True,
    )
    preempted = [(i, r) for i, batch in enumerate(seen.batches, 1) for r in batch.preempted]
    assert preempted[0] == (38, 14)
    assert [r for _, r in preempted[:4]] == [14, 13, 12, 11]
    assert requests[8].generated == 787
    assert requests[0].generated == 400
    assert len(seen.batches) == 811


def test_vllm_v0_preempts_as_the_original():
    """The same pool under vLLM v0: 14, 13, 12, 11, 10, 9 at steps 36, 68, 116, 164, 228, 308."""
    seen = Batches()
    requests = requests_of([(0, 511, 400)] * 15)
    serve(
        requests,
        VllmV0,
        num_blocks=513,
        observer=seen,
        macro=False,
        first_token_at_prefill_end=False,
        regenerate_output=True,
        max_model_len=8192,
    )
    preempted = [(i, r) for i, batch in enumerate(seen.batches, 1) for r in batch.preempted]
    assert preempted[:6] == [(36, 14), (68, 13), (116, 12), (164, 11), (228, 10), (308, 9)]


def test_faster_transformer_admits_only_when_all_are_done():
    seen = Batches()
    requests = requests_of([(0, 10, 2), (0, 10, 5), (0, 10, 3), (1, 10, 1)])
    serve(
        requests,
        lambda: FasterTransformer(max_num_seqs=3),
        num_blocks=2000,
        observer=seen,
        macro=False,
        first_token_at_prefill_end=False,
    )
    admitted = [[i for i, _ in batch.prefills] for batch in seen.batches]
    assert admitted[0] == [0, 1, 2]
    assert admitted[1:6] == [[]] * 5
    assert admitted[6] == [3]


def test_simple_chunking_takes_turns():
    """P=20 D=6 and P=1200 D=2, chunk 512: (20 + 492), decode, 512, decode, 196, then joint decodes."""
    seen = Batches()
    requests = requests_of([(0, 20, 6), (0, 1200, 2)])
    serve(
        requests,
        lambda: SimpleChunking(chunk_size=512),
        num_blocks=2000,
        observer=seen,
        macro=False,
        first_token_at_prefill_end=False,
    )
    shape = [(sum(chunk for _, chunk in batch.prefills), len(batch.decodes)) for batch in seen.batches]
    assert shape[:7] == [(512, 0), (0, 1), (512, 0), (0, 1), (196, 0), (0, 2), (0, 2)]


def test_spf_admits_the_shortest_prompt_first():
    seen = Batches()
    requests = requests_of([(0, 100, 1), (0, 50, 1), (0, 75, 1)])
    serve(requests, lambda: Sarathi(order="spf"), num_blocks=2000, observer=seen, macro=False)
    assert [i for i, _ in seen.batches[0].prefills] == [1, 2, 0]


def test_dynamic_chunk_table_is_the_originals():
    assert chunk_schedule(128, 2048, 16) == list(range(2048, 0, -128))


def test_vllm_v1_emits_no_more_than_its_budget_and_serves_decodes_first():
    seen = Batches()
    requests = requests_of([(0, 30, 60)] * 20 + [(100_000_000, 900, 3)])
    serve(requests, lambda: VllmV1(max_num_batched_tokens=128, max_num_seqs=64), observer=seen, macro=False)
    tokens = [sum(c for _, c in b.prefills) + len(b.decodes) for b in seen.batches]
    assert max(tokens) <= 128
    long_prompt = [c for b in seen.batches for i, c in b.prefills if i == 20]
    assert sum(long_prompt) == 900
    assert long_prompt[0] == 128 - 20


def test_vllm_v1_preempts_the_last_admitted_and_keeps_its_outputs():
    seen = Batches()
    requests = requests_of([(0, 511, 400)] * 15)
    serve(requests, lambda: VllmV1(max_num_batched_tokens=512, max_num_seqs=64), num_blocks=513, observer=seen)
    first = next(batch.preempted for batch in seen.batches if batch.preempted)
    assert first == [14]
    assert all(r.generated == 400 for r in requests)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sarathi(chunk_size=0), "chunk_size must be at least 1 but got 0"),
        (lambda: Sarathi(order="lifo"), "order must be 'fcfs' or 'spf' but got 'lifo'"),
        (lambda: VllmV1(max_num_batched_tokens=64, max_num_seqs=128), "max_num_batched_tokens must be at least 128"),
        (lambda: serve(requests_of([(0, 1, 1)]), lambda: VllmV0(max_num_batched_tokens=10)), "could never run"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_subclass_of_sarathi_that_overrides_a_hook_is_asked():
    """Sarathi itself needs neither hook with a fixed chunk in arrival order, and does not offer the queue then."""

    class Halves(Sarathi):
        def chunk_limit(self, request):
            return self.chunk_size // 2

    class Last(Sarathi):
        def order_waiting(self, now):
            self.waiting = deque(sorted(self.waiting, key=lambda r: -r.id))

    requests = requests_of([(0, 512, 1), (0, 512, 1), (0, 512, 1)])
    serve(requests, Halves)
    assert [r.chunks for r in requests] == [2, 2, 2]
    requests = requests_of([(0, 512, 1), (0, 512, 1), (0, 512, 1)])
    serve(requests, Last)
    assert sorted(requests, key=lambda r: r.finish_ns) == requests[::-1]


def test_prompts_under_way_stay_in_order_of_arrival_whoever_enters():
    policy = ContinuousBatching()
    policy.bind(KVCache(100), 3000)
    requests = requests_of([(0, 10, 1), (1, 10, 1), (1, 10, 1), (2, 10, 1)])
    for at in (1, 3, 2, 0):
        policy.start_prefill(requests[at])
    assert policy.prefilling == requests


RESERVES = ("orca", "faster_transformer")
"""They keep room for the longest sequence the model takes, and preempt nobody."""


@pytest.mark.parametrize("policy", [name for name in POLICIES if name not in RESERVES])
def test_who_is_longer_than_the_model_after_a_preemption_is_refused_and_the_others_are_served(policy):
    """Prompts of 10 tokens and answers of 150 where the model takes 160, and whoever is preempted answers anew: with
    more than 160 tokens nobody can begin again. Engines that end answers at the limit never get there."""
    requests = requests_of([(i, 10, 150) for i in range(12)])
    cluster = serve(requests, POLICIES[policy], num_blocks=30, max_model_len=160, regenerate_output=True)
    refused = [r for r in requests if r.rejected]
    assert any(r.preemptions for r in requests)
    assert bool(refused) == (not cluster.replicas[0].scheduler.ends_at_limit)
    for request in refused:
        assert request.preemptions
        assert request.rejected == f"{request.prefill_tokens} tokens to prefill are more than max_model_len=160"
        assert request.prefill_tokens > 160
    assert all(r.generated >= 150 for r in requests if not r.rejected)
    (replica,) = cluster.replicas
    assert replica.kv.used_blocks == replica.outstanding == replica.prefill_left == 0


def test_vllm_v1_admits_beside_long_prompts_only_what_its_budget_holds():
    """Two long prompts take 60 tokens a step each: ten decodes fit beside them, and ten more requests wait."""
    seen = Batches()
    requests = requests_of([(0, 2000, 2)] * 2 + [(0, 10, 30)] * 20)
    policy = lambda: VllmV1(  # noqa: E731
        max_num_batched_tokens=130, max_num_seqs=128, long_prefill_token_threshold=60, reserve_full_isl=False
    )
    serve(requests, policy, num_blocks=2000, observer=seen, macro=False)
    beside = [b for b in seen.batches if [c for _, c in b.prefills] == [60, 60]]
    assert max(len(b.decodes) for b in beside) == 10
    assert all(sum(c for _, c in b.prefills) + len(b.decodes) <= 130 for b in seen.batches)
    ends = [r.finish_ns for r in requests[2:]]
    assert ends[:10] == sorted(ends[:10])
    assert max(ends[:10]) < min(ends[10:]), "those in front were served first"
    assert all(r.generated == r.output_tokens for r in requests)


@dataclass
class Bursts(VllmV1):
    """A variant whose prompts begin with chunks of ten tokens and then take all there is."""

    long_prefill_token_threshold: int = 500

    def _chunk(self, request, computed):
        return min(super()._chunk(request, computed), 10 if computed < 40 else 10**9)


def test_vllm_v1_holds_back_decodes_that_the_budget_does_not_reach_and_they_go_on_afterwards():
    """A prompt of 600 tokens is first in line; from its fifth chunk on it leaves nothing to the decodes behind it."""
    requests = requests_of([(0, 600, 2)] + [(0, 10, 30)] * 20)
    seen = Batches()
    policy = lambda: Bursts(max_num_batched_tokens=130, max_num_seqs=128, reserve_full_isl=False)  # noqa: E731
    serve(requests, policy, num_blocks=2000, observer=seen, macro=False)
    shapes = [(b.prefills, len(b.decodes)) for b in seen.batches]
    first = shapes.index(([(0, 130)], 0))
    assert shapes[first - 1] == ([(0, 10)], 20)
    assert shapes[first : first + 4] == [([(0, 130)], 0)] * 4
    assert shapes[first + 4] == ([(0, 40)], 20), "the rest of the prompt, and all who were held back"
    assert all(r.generated == r.output_tokens for r in requests)


def test_a_policy_that_holds_decodes_back_conforms():
    check_scheduler(lambda: Bursts(max_num_batched_tokens=130, max_num_seqs=128), cases=SOME)
