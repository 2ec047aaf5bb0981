"""Policies for compare_summaries.py: options that may be drawn for every built-in one, and a file of one's own."""

from __future__ import annotations

import json
from random import Random
from typing import Any

SCHEDULERS: dict[str, dict[str, tuple[Any, ...]]] = {
    "dynamic": {
        "batch_size": (4, 8, 16),
        "min_batch_size": (1, 2, 4),
        "max_batch_size": (8, 16, 32),
        "timeout_s": (0.05, 0.5, 2.0),
        "max_time_wait_s": (0.1, 2.0),
        "memory_threshold": (0.3, 0.8),
        "memory_floor": (0.0, 0.2),
        "adapts": (True, False),
    },
    "faster_transformer": {"max_num_seqs": (4, 32, 128)},
    "hold_n": {"token_budget": (256, 512), "hold_n": (0, 1)},
    "naive": {"batch_size": (2, 4, 16), "timeout_s": (0.0, 0.1, 0.5)},
    "niyama": {
        "chunk_size": (128, 256, 512),
        "mode": ("fcfs", "edf", "srpf", "deadline", "deadline_no_dynamic_chunking"),
        "execution_threshold": (0.05, 0.1),
        "execution_threshold_batched": (0.2, 0.4),
        "output_len_pred": (0, 15, 100),
        "hybrid_prioritization_param": (0.0, 0.008),
        "tier_deadlines_s": ([6.0, 600.0, 1800.0], [0.5, 4.0, 30.0]),
        "predictor": ("published", "a100/llama-3-8b", "rtx-6000-ada/mistral-7b"),
        "largest_slack_first": (True, False),
        "stale_heap": (True, False),
    },
    "orca": {"max_num_seqs": (8, 24)},
    "rad": {"tile": (16, 64, 128), "chunk": (64, 256, None), "prefills_per_cycle": (5, 40, None)},
    "sarathi": {
        "chunk_size": (128, 256, 512, 2048),
        "max_num_seqs": (16, 64, 128),
        "order": ("fcfs", "spf"),
        "dynamic_chunks": (True, True, False),
        "chunk_low": (64, 128),
        "chunk_high": (512, 2048),
        "chunk_max_tokens": (2048, 8192),
        "chunk_stages": (4, 16),
    },
    "simple_chunking": {"chunk_size": (128, 256, 512), "max_num_seqs": (16, 128), "empty_turn_passes": (True, False)},
    "slai": {
        "token_budget": (256, 512, 1024),
        "max_num_seqs": (32, 128),
        "limit_total_decodes": (16, 64, 128),
        "default_tbt_s": (0.05, 0.2),
        "below_memory_limit_offset": (1, 5.0),
        "above_memory_limit_offset": (5, 10.0),
        "memory_limit": (0.5, 0.96),
        "fixed_offset": (True, False),
        "order": ("fcfs", "spf"),
        "user_priority": (True, False),
    },
    "vllm_v0": {"max_num_batched_tokens": (300_000, None), "max_num_seqs": (16, 64, 128)},
    "vllm_v1": {
        "max_num_batched_tokens": (256, 1024, 8192),
        "max_num_seqs": (32, 128, 256),
        "long_prefill_token_threshold": (0, 100, 500),
        "reserve_full_isl": (True, False),
        "watermark": (0.0, 0.05),
        "null_block": (True, False),
    },
    "policies.py:EarliestDeadlineFirst": {"ttft_target_s": (0.5, 2.0), "chunk_size": (256, 512)},
    "policies.py:NaiveFcfs": {"max_num_seqs": (16, 64)},
}
"""Every built-in policy and two of the file below; any choice for one option goes with any for the others."""

ROUTERS: dict[str, dict[str, tuple[Any, ...]]] = {
    "round_robin": {},
    "random": {},
    "least_requests": {},
    "least_tokens": {"expected_output_tokens": (64, 512.0), "learn_from": (1, 10, None)},
    "least_work": {
        "chunk_tokens": (256, 1024),
        "decode_batch": (8, 64),
        "expected_output_tokens": (64, 512.0),
        "learn_from": (1, 10, None),
    },
    "power_of_two": {},
    "most_free_kv": {},
    "policies.py:LeastKv": {},
}

OWN_POLICIES = '''"""Policies of one's own, as the documentation writes them: public names only."""

from collections import deque
from dataclasses import dataclass

from llmsim import SECOND, Batch, ContinuousBatching, Router, Scheduler


@dataclass
class NaiveFcfs(Scheduler):
    """Whole prompts, oldest first."""

    max_num_seqs: int = 64

    def schedule(self, now):
        batch = Batch(now)
        if self.decodes.size:
            self.add_all_decodes(batch)
        while self.waiting and self.resident < self.max_num_seqs:
            if self.reject_too_long(batch):
                continue
            request = self.waiting[0]
            if request in batch.preempted or not self.kv.can_admit(request.prefill_tokens):
                break
            self.waiting.popleft()
            self.kv.allocate(request, request.prefill_tokens)
            self.prefilling.append(request)
            batch.add_prefill(request, request.prefill_tokens)
        return batch


@dataclass
class EarliestDeadlineFirst(ContinuousBatching):
    """The prompt whose target expires first; a class's own target counts before `ttft_target_s`."""

    ttft_target_s: float = 1.0

    def order_waiting(self, now):
        def due(request):
            target = request.slo.ttft_s or self.ttft_target_s
            return request.arrival_ns + round(target * SECOND), request.id

        self.waiting = deque(sorted(self.waiting, key=due))


@dataclass
class LeastKv(Router):
    """The replica with the most free KV blocks."""

    def route(self, request, replicas, now):
        return self.least([-view.free_blocks for view in replicas])
'''


def draw_policy(rng: Random, name: str, known: dict[str, dict[str, tuple[Any, ...]]]) -> str | dict[str, Any]:
    """The policy with about half of its options given, as a name, one line, or a mapping."""
    options = {key: rng.choice(values) for key, values in known[name].items() if rng.random() < 0.5}
    if any(isinstance(value, list) for value in options.values()) or rng.random() < 0.5:
        return {"name": name, **options}
    lines = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()]
    return ",".join([name, *lines])
