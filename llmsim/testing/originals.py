"""The originals of the decision traces: who stands for them here, with which options, and what nobody here does yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from llmsim.costs.base import CostModel
from llmsim.errors import ConfigError
from llmsim.schedulers.faster_transformer import FasterTransformer
from llmsim.schedulers.niyama import Niyama
from llmsim.schedulers.orca import Orca
from llmsim.schedulers.sarathi import Sarathi
from llmsim.schedulers.simple_chunking import SimpleChunking
from llmsim.schedulers.slai import Slai
from llmsim.schedulers.vllm_v0 import VllmV0
from llmsim.schedulers.vllm_v1 import VllmV1
from llmsim.units import FS_PER_SECOND

if TYPE_CHECKING:
    from llmsim.core.batch import Work
    from llmsim.schedulers.base import Scheduler


def _vllm_v1(*, scheduler_reserve_full_isl: bool, version: str, **params: Any) -> VllmV1:
    """vLLM's own names; prefix caching is the KV cache's and async scheduling the replica's (golden.py)."""
    for engine in ("enable_prefix_caching", "async_scheduling"):
        params.pop(engine)
    return VllmV1(reserve_full_isl=scheduler_reserve_full_isl, version=version, **params)


SCHEDULERS: dict[str, Callable[..., Scheduler]] = {
    "faster_transformer": FasterTransformer,
    "niyama": partial(Niyama, largest_slack_first=True, stale_heap=True, unchecked_memory=True),
    "orca": Orca,
    "sarathi": Sarathi,
    "simple_chunking": SimpleChunking,
    "slai": Slai,
    "vllm": VllmV0,
    "vllm_v1": _vllm_v1,
}
"""The originals' names and who stands for them here, faults included; parameters carry the originals' names."""

SEMANTICS = {"first_token_at_prefill_end", "preempted_request_regenerates_output", "async_scheduling"}


def scheduler_of(trace: dict[str, Any]) -> Scheduler:
    """The policy that stands for the trace's original; ConfigError for semantics that nothing is known of."""
    unknown = sorted(set(trace["semantics"]) - SEMANTICS)
    if unknown:
        raise ConfigError(f"semantics may hold {', '.join(sorted(SEMANTICS))} but got {', '.join(unknown)}")
    params = trace["params"]
    if trace["scheduler"] == "vllm_v1":
        params = params | {"version": ".".join(trace["version"].split(".")[:2])}
    return SCHEDULERS[trace["scheduler"]](**params)


def lacking(trace: dict[str, Any]) -> list[str]:
    """What the recorded run needs and nothing here does: empty if it can be replayed."""
    name = trace["scheduler"]
    if name not in SCHEDULERS:
        return [f"scheduler {name}"]
    return ["pipeline stages"] if "pipeline" in trace else []


class GoldenCost(CostModel):
    """max(floor, base + per token x tokens) + per decode-context token x context, the traces' own function."""

    def __init__(self, floor_s: float, base_s: float, per_token_s: float, per_decode_context_token_s: float) -> None:
        self._floor, self._base, self._token, self._context = (
            round(value * FS_PER_SECOND) for value in (floor_s, base_s, per_token_s, per_decode_context_token_s)
        )

    def femtoseconds(self, work: Work) -> int:
        """Price of one iteration."""
        return max(self._floor, self._base + self._token * work.tokens) + self._context * work.decode_context

    def seconds(self, work: Work) -> float:
        """The same in seconds."""
        return self.femtoseconds(work) / FS_PER_SECOND
