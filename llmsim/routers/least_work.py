"""Least expected work: outstanding tokens as seconds, priced by each replica's own calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from llmsim.errors import ConfigError
from llmsim.routers.outputs import ExpectsOutputs
from llmsim.routers.prices import TokenPrices
from llmsim.routers.view import LoadBoard, ReplicaView

if TYPE_CHECKING:
    from llmsim.core.request import Request


@dataclass
class LeastWork(ExpectsOutputs):
    """The replica that would be done first with what it has and the request.

    Prompt tokens are priced as chunks of `chunk_tokens` in the middle of a prompt like this one, expected output
    tokens as decodes of `decode_batch` sequences at the length expected half-way; so a constant and a floor of the
    model are shared as in a busy engine. This is an estimate for comparing replicas, not a forecast of latency.
    """

    chunk_tokens: int = 512
    decode_batch: int = 32

    _board: LoadBoard | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("chunk_tokens", "decode_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1 but got {getattr(self, name)}")

    def bind(self, replicas: int, rng: np.random.Generator) -> None:
        """Start a run."""
        super().bind(replicas, rng)
        self._board = None

    def route(self, request: Request, replicas: Sequence[ReplicaView], now: int) -> int:
        """The replica with the least expected seconds of work once it has this request."""
        board = LoadBoard.over(replicas)
        if board is not self._board:
            self._begin(board, replicas)
        board.refresh(now)
        self._price(request.prompt_tokens)
        # In arrays that are kept: (prefill + prompt) * per_prompt_token + (decode + outputs) * per_output_token.
        prefill = np.add(board.prefill, self._prompt, self._prefill)
        prefill *= self._per_prompt_token
        decode = self.decode_tokens(board, self._decode)
        decode += self._expected
        decode *= self._per_output_token
        prefill += decode
        return self.least(prefill)

    def _begin(self, board: LoadBoard, replicas: Sequence[ReplicaView]) -> None:
        """What the replicas price with is asked for once."""
        if not all(view.prices_work for view in replicas):
            raise ConfigError("least_work needs a batch-time model for every replica; use least_tokens instead")
        self._board = board
        kinds = {view.price_class: view for view in replicas}
        self._prices = [TokenPrices(view, self.chunk_tokens, self.decode_batch) for view in kinds.values()]
        self._only = self._prices[0] if len(self._prices) == 1 else None
        number = {kind: i for i, kind in enumerate(kinds)}
        self._kind_of = np.array([number[view.price_class] for view in replicas])
        self._prefill, self._decode = np.zeros((2, len(replicas)))
        self._prompt = np.zeros(())
        each = () if len(kinds) == 1 else (len(replicas),)
        self._per_prompt_token, self._per_output_token = np.zeros(each), np.zeros(each)

    def _price(self, prompt: int) -> None:
        """Seconds of a prompt token and of an output token for a prompt of this length, one for all or by replica."""
        self._prompt[()] = prompt
        past, length = prompt // 2, prompt + int(self.output_tokens / 2)
        if self._only is not None:
            self._per_prompt_token[()] = self._only.prompt_token(past)
            self._per_output_token[()] = self._only.output_token(length)
        else:
            self._per_prompt_token = np.array([kind.prompt_token(past) for kind in self._prices])[self._kind_of]
            self._per_output_token = np.array([kind.output_token(length) for kind in self._prices])[self._kind_of]
