"""vLLM v1 with prefix caching, priorities and without chunked prefill: recordings of rare cases, and its options."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llmsim.core.kvcache import KVCache
from llmsim.core.request import Request
from llmsim.errors import ConfigError
from llmsim.schedulers.vllm_v1 import VllmV1
from llmsim.testing import check_scheduler, golden
from llmsim.testing.conformance import CASES
from tests.effort import cases

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.json.gz"))
SOME = cases(CASES, 5)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_rare_cases_are_as_vllm_has_them(path, capsys):
    assert golden.main([str(path)]) == 0
    assert " mismatches 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "priority", "max_num_batched_tokens": 300},
        {"policy": "priority", "max_num_batched_tokens": 130, "long_prefill_token_threshold": 60, "version": "0.33"},
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 2000, "version": "0.24"},
    ],
)
def test_every_way_conforms(options):
    class Urgent(VllmV1):
        """Its requests are of four priorities."""

        def add(self, request):
            request.priority = random.Random(request.id).randint(0, 3)
            super().add(request)

    check_scheduler(lambda: Urgent(max_num_seqs=128, **options), cases=SOME)


def served(policy, *requests):
    kv = KVCache(100)
    policy.bind(kv, 1000)
    for request in requests:
        policy.add(request)
    batch = policy.schedule(0)
    return [(request.id, chunk) for request, chunk in zip(batch.prefills, batch.chunks, strict=True)]


def test_the_more_urgent_is_admitted_first_then_the_older():
    requests = [Request(i, i, 10, 1, priority=priority) for i, priority in enumerate([0, 2, -1, 2])]
    assert served(VllmV1(policy="priority"), *requests) == [(1, 10), (3, 10), (0, 10), (2, 10)]
    assert served(VllmV1(), *requests) == [(0, 10), (1, 10), (2, 10), (3, 10)]


@pytest.mark.parametrize(("version", "chunk"), [("0.19", 40), ("0.24", 40), ("0.33", 100), (0.33, 100)])
def test_the_threshold_spares_a_single_request_from_0_33_on(version, chunk):
    policy = lambda: VllmV1(long_prefill_token_threshold=40, version=version)  # noqa: E731
    assert served(policy(), Request(0, 0, 100, 1)) == [(0, chunk)]
    assert served(policy(), Request(0, 0, 100, 1), Request(1, 0, 100, 1)) == [(0, 40), (1, 40)]


def test_without_chunks_a_prompt_waits_for_the_budget():
    policy = VllmV1(enable_chunked_prefill=False, max_num_batched_tokens=1000)
    prompts = [Request(i, 0, tokens, 1) for i, tokens in enumerate([600, 500, 100])]
    assert served(policy, *prompts) == [(0, 600)]  # the third would fit, but stands behind the second
    with pytest.raises(ConfigError, match="must hold a whole sequence of max_model_len=1000 tokens but is 999"):
        served(VllmV1(enable_chunked_prefill=False, max_num_batched_tokens=999))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": "lifo"}, "policy must be one of fcfs, priority but got 'lifo'"),
        ({"version": "0.20"}, "version must be one of 0.15, 0.19, 0.24, 0.33 but got '0.20'"),
    ],
)
def test_what_vllm_does_not_have_is_refused(options, said):
    with pytest.raises(ConfigError) as refused:
        VllmV1(**options)
    assert said in str(refused.value)
