"""Drawn lengths under a model's limit, as many at a time as asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import TraceError
from llmsim.traces.limits import clip_lengths, over_limit

Ints = NDArray[np.int64]
Draw = Callable[[int], tuple[Ints, Ints]]
_ROUND = 1000
"""Least draws of a round, so that a distribution almost all above the limit ends soon, one way or the other."""


class DrawnLengths:
    """The lengths of `count` requests from `draw`, a function that draws the next n pairs of an endless file.

    Over the limit they follow `on_long`: 'clip', 'drop' (passed over, and counted in `refused`), or 'error', which
    `finish` raises when all have been taken, so that it can say how many there are. At most `block` are drawn at once.
    """

    def __init__(self, draw: Draw, count: int, limit: int | None, on_long: str, block: int) -> None:
        self.clipped = 0
        self.refused = 0
        self._draw = draw
        self._count = count
        self._limit = limit
        self._on_long = on_long
        self._block = block
        self._taken = 0
        self._long = 0
        self._first_long: tuple[int, int] | None = None
        self._waiting = np.zeros((4, 0), dtype=np.int64)
        """Pairs within the limit that nobody has taken: prompt, output, place in the endless file, and how many draws
        before had a prompt over the limit; shape (4, pairs)."""
        self._long_prompts = 0
        self._long_drawn = 0
        self._drawn = 0
        self._within = 0
        self._round = self._left = count
        self._round_within = 0
        self._shortest: int | None = None

    def take(self, n: int) -> tuple[Ints, Ints]:
        """Prompt and output tokens of the next n requests; TraceError if hardly anything is within the limit."""
        if self._limit is not None and self._on_long == "drop":
            pair = self._within_limit(n)
        else:
            pair = self._draw(n)
            if self._limit is not None and self._on_long == "clip":
                clipped = clip_lengths(*pair, self._limit)
                self.clipped += int(clipped.changed.sum())
                pair = clipped.prompt_tokens, clipped.output_tokens
            elif self._limit is not None:
                self._note_long(pair[0], self._limit)
        self._taken += n
        return pair

    def finish(self) -> None:
        """TraceError if a prompt was over the limit that may be neither clipped nor dropped."""
        if self._first_long is None:
            return
        request, tokens = self._first_long
        raise TraceError(
            f"drawn workload: request {request}, prompt_tokens: {tokens} is longer than the "
            f"model's limit of {self._limit} tokens ({self._long} of {self._count} requests); raise the limit, "
            "scale them down with on_long='clip' (--on-long clip), or draw them again with on_long='drop' "
            "(--on-long drop)"
        )

    @property
    def dropped(self) -> dict[str, int]:
        """Refused draws, as a workload counts what it leaves out."""
        by_reason = {"prompt_too_long": self._long_prompts, "total_too_long": self.refused - self._long_prompts}
        return {reason: count for reason, count in by_reason.items() if count}

    def _note_long(self, prompt: Ints, limit: int) -> None:
        """Count prompts over the limit and keep the first."""
        long = prompt > limit
        if self._first_long is None and long.any():
            at = int(np.argmax(long))
            self._first_long = self._taken + at, int(prompt[at])
        self._long += int(long.sum())

    def _within_limit(self, n: int) -> tuple[Ints, Ints]:
        """The next n pairs within the limit."""
        while self._waiting.shape[1] < n:
            self._more()
        prompt, output, place, long_prompts = self._waiting[:, :n]
        self._waiting = self._waiting[:, n:]
        if n:
            self.refused = int(place[-1]) + 1 - (self._taken + n)
            self._long_prompts = int(long_prompts[-1])
        return prompt, output

    def _more(self) -> None:
        """Draw on: the first round is as long as the workload, further ones as long as what is missing."""
        assert self._limit is not None
        if not self._left:
            self._round = self._left = max(self._count - self._within, _ROUND)
            self._round_within, self._shortest = 0, None
        n = min(self._left, self._block)
        prompt, output = self._draw(n)
        over = over_limit(prompt, output, self._limit)
        kept = np.flatnonzero(~(over["prompt_too_long"] | over["total_too_long"]))
        long_before = np.cumsum(over["prompt_too_long"]) + self._long_drawn
        pairs = np.stack((prompt[kept], output[kept], kept + self._drawn, long_before[kept]))
        self._long_drawn = int(long_before[-1])
        self._waiting = np.concatenate((self._waiting, pairs), axis=1)
        self._within += len(kept)
        self._round_within += len(kept)
        shortest = int((prompt + output).min())
        self._shortest = shortest if self._shortest is None else min(self._shortest, shortest)
        self._left -= n
        self._drawn += n
        first = self._drawn <= self._count
        if not self._left and not self._round_within and not first:
            raise TraceError(
                f"drawn workload: of {self._round} draws none is within the model's limit of {self._limit} tokens "
                f"(the shortest has {self._shortest}, prompt and output); raise the limit or use on_long='clip' "
                "(--on-long clip)"
            )
