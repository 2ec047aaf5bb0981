"""Most free KV: the replica whose cache has room for the most tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.routers.base import Router
from llmsim.routers.view import LoadBoard, ReplicaView

if TYPE_CHECKING:
    from llmsim.core.request import Request


@dataclass
class MostFreeKv(Router):
    """The replica with the most free KV tokens, less the prompt tokens it has still to compute.

    Without these, all arrivals would go to one replica until its queue has been admitted.
    """

    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """Most free tokens; on caches of equal size this is the least memory in use or promised."""
        board = LoadBoard.over(replicas)
        board.watch_kv()
        board.refresh(now)
        return self.least(board.prefill - board.free_tokens)
