"""Least expected work: outstanding tokens as seconds, priced by each replica's own calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from llmsim.batch import Work
from llmsim.errors import ConfigError
from llmsim.routers.base import ReplicaView
from llmsim.routers.board import WorkBoard
from llmsim.routers.outputs import ExpectsOutputs

if TYPE_CHECKING:
    from llmsim.request import Request


@dataclass
class LeastWork(ExpectsOutputs):
    """The replica that would be done first with what it has and the request.

    Prompt tokens are priced as chunks of `chunk_tokens` in the middle of a prompt like this one, expected output
    tokens as decodes of `decode_batch` sequences at the length expected half-way; so a constant and a floor of the
    model are shared as in a busy engine. This is an estimate for comparing replicas, not a forecast of latency.
    """

    chunk_tokens: int = 512
    decode_batch: int = 32

    _board: WorkBoard | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("chunk_tokens", "decode_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1 but got {getattr(self, name)}")

    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """The replica with the least expected seconds of work once it has this request."""
        board = self._board or self._begin(replicas)
        board.refresh(now)
        prompt, outputs = request.prompt_tokens, self.output_tokens
        rates = np.array([self._rates(view, prompt) for view in self._kinds])[self._kind_of]
        # At least one token each, as in `decode_tokens`.
        decode = np.maximum(board.outstanding * outputs - board.generated, board.outstanding)
        loads = (board.prefill + prompt) * rates[:, 0] + (decode + outputs) * rates[:, 1]
        return self.least(loads.tolist())

    def _begin(self, replicas: Sequence[ReplicaView]) -> WorkBoard:
        """What the replicas price with is asked for once."""
        if not all(view.prices_work for view in replicas):
            raise ConfigError("least_work needs a batch-time model for every replica; use least_tokens instead")
        classes = [view.price_class for view in replicas]
        first = {kind: view for view, kind in zip(reversed(replicas), reversed(classes), strict=True)}
        self._kinds = list(first.values())
        self._kind_of = [list(first).index(kind) for kind in classes]
        self._board = WorkBoard(replicas)
        return self._board

    def bind(self, replicas: int, rng: np.random.Generator) -> None:
        """Start a run."""
        super().bind(replicas, rng)
        self._board = None

    def _rates(self, view: ReplicaView, prompt: int) -> tuple[float, float]:
        """Seconds of a prompt token and of an output token, for a prompt of this length."""
        chunk, batch = self.chunk_tokens, self.decode_batch
        past = prompt // 2
        pairs = chunk * past + chunk * (chunk + 1) // 2
        context = batch * (prompt + int(self.output_tokens / 2))
        per_prompt_token = view.seconds(Work(chunk, 1, past, pairs)) / chunk
        return per_prompt_token, view.seconds(Work(decode_tokens=batch, decode_context=context)) / batch
