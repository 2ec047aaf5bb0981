"""Least outstanding tokens: prompt tokens to compute plus output tokens expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.routers.outputs import ExpectsOutputs
from llmsim.routers.view import LoadBoard, ReplicaView

if TYPE_CHECKING:
    from llmsim.core.request import Request


@dataclass
class LeastTokens(ExpectsOutputs):
    """The replica with the fewest tokens left to run; outputs count as ExpectsOutputs expects them."""

    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """The replica with the fewest prompt and expected output tokens outstanding."""
        board = LoadBoard.over(replicas)
        board.refresh(now)
        return self.least(board.prefill + self.decode_tokens(board))
