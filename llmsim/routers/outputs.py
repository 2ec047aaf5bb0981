"""What a router may expect of outputs: the mean length of those it has seen end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import ConfigError
from llmsim.routers.base import Router

if TYPE_CHECKING:
    from llmsim.core.request import Request
    from llmsim.routers.view import LoadBoard


@dataclass
class ExpectsOutputs(Router):
    """Counts an outstanding request as `expected_output_tokens` until `learn_from` answers are in, then as the
    mean output of all answers so far. `learn_from` None keeps the given number for good."""

    expected_output_tokens: float = 256.0
    learn_from: int | None = 10

    def __post_init__(self) -> None:
        if self.expected_output_tokens < 1:
            raise ConfigError(f"expected_output_tokens must be at least 1 but got {self.expected_output_tokens}")
        if self.learn_from is not None and self.learn_from < 1:
            raise ConfigError(f"learn_from must be at least 1 answer, or none, but got {self.learn_from}")

    def bind(self, replicas: int, rng: np.random.Generator) -> None:
        """Start a run with no answer seen."""
        super().bind(replicas, rng)
        self._answers = 0
        self._output_tokens = 0
        self._expected = np.zeros(())  # `output_tokens`: numpy takes in its own scalars in half the time

    def answered(self, request: Request) -> None:
        """Learn from it."""
        self._answers += 1
        self._output_tokens += request.generated

    @property
    def output_tokens(self) -> float:
        """Output tokens that a request is expected to have."""
        if self.learn_from is None or self._answers < self.learn_from:
            return self.expected_output_tokens
        return max(1.0, self._output_tokens / self._answers)

    def decode_tokens(self, board: LoadBoard, out: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Output tokens that each replica's outstanding requests are expected to emit yet: at least one each."""
        self._expected[()] = self.output_tokens
        left = np.multiply(board.outstanding, self._expected, out)
        left -= board.generated
        return np.maximum(left, board.outstanding, out=left)
