"""What prompt and output tokens cost on one kind of replica, in seconds, each price asked for once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmsim.core.batch import Work

if TYPE_CHECKING:
    from llmsim.routers.view import ReplicaView


class TokenPrices:
    """Seconds a token by the batch-time model of `view`: prompt tokens in chunks of `chunk_tokens`, output tokens as
    decodes of `decode_batch` sequences. A model's price of a batch is always the same, so it is kept."""

    def __init__(self, view: ReplicaView, chunk_tokens: int, decode_batch: int) -> None:
        self._view = view
        self._chunk = chunk_tokens
        self._batch = decode_batch
        self._prompt: dict[int, float] = {}
        self._output: dict[int, float] = {}

    def prompt_token(self, past: int) -> float:
        """A token of a chunk that has `past` tokens of its prompt before it."""
        price = self._prompt.get(past)
        if price is None:
            chunk = self._chunk
            pairs = chunk * past + chunk * (chunk + 1) // 2
            self._prompt[past] = price = self._view.seconds(Work(chunk, 1, past, pairs)) / chunk
        return price

    def output_token(self, length: int) -> float:
        """A token of a batch of sequences that are `length` tokens long."""
        price = self._output.get(length)
        if price is None:
            batch = self._batch
            work = Work(decode_tokens=batch, decode_context=batch * length)
            self._output[length] = price = self._view.seconds(work) / batch
        return price
