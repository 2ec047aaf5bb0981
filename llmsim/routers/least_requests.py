"""Least outstanding requests: the replica with the fewest unanswered requests, queued or running."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.routers.base import Router
from llmsim.routers.view import LoadBoard, ReplicaView

if TYPE_CHECKING:
    from llmsim.core.request import Request


@dataclass
class LeastRequests(Router):
    """Join the shortest queue, what runs included; equal ones take turns."""

    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """The replica with the fewest outstanding requests."""
        board = LoadBoard.over(replicas)
        board.count()
        return self.least(board.outstanding)
