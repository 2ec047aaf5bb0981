"""Most free KV: the replica whose cache has room for the most tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.routers.base import ReplicaView, Router

if TYPE_CHECKING:
    from llmsim.request import Request


@dataclass
class MostFreeKv(Router):
    """The replica with the most free KV tokens, less the prompt tokens it has still to compute.

    Without these, all arrivals would go to one replica until its queue has been admitted.
    """

    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """Most free tokens; on caches of equal size this is the least memory in use or promised."""
        return self.least([view.prefill_tokens - view.free_blocks * view.block_size for view in replicas])
