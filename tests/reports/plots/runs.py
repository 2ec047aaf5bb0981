"""Results of the reference engine to draw: two policies, two replicas, three classes."""

from __future__ import annotations

from typing import Any

from llmsim.metrics import parse_slo, summarize
from llmsim.runs.results import Result
from tests.metrics import reference

CONFIG = """name: demo
scheduler: {scheduler}
cluster:
  replicas: 2
engine:
  first_token_at_prefill_end: true
seed: {seed}
"""


def made(
    seed: int = 0, scheduler: str = "sarathi", *, definitions: str = "vllm", warmup_s: float = 0, **changes: Any
) -> Result:
    """A run; `changes` lay over its summary."""
    run = reference.run(seed, count=40)
    summary = {"name": "demo", "scheduler": scheduler, "seed": seed} | summarize(
        *run.tables,
        definitions=definitions,  # type: ignore[arg-type]
        replicas=2,
        slo=parse_slo("ttft:20"),
        kv_num_blocks=[20, 40],
        block_size=16,
        warmup_s=warmup_s,
        first_token_at_prefill_end=True,
    )
    return Result(
        name="demo",
        requests=run.requests,
        iterations=run.iterations,
        token_ranges=run.token_ranges,
        summary=summary | changes,
        manifest={
            "config": CONFIG.format(scheduler=scheduler, seed=seed),
            "seed": seed,
            "arguments": ["simulate", "a file.yaml", "--seed", str(seed)],
            "versions": {"llmsim": "0.1.0"},
            "calibration": {"name": "a100/llama", "sha256": "abc", "source": "a <measured> table"},
            "workload": {"spec": {"trace": "t"}, "num_requests": 40},
        },
    )
