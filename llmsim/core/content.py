"""Content: what the tokens of a request are, as far as other requests may have the same ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llmsim.errors import ConfigError

Stream = str | int
"""Name of an endless sequence of tokens: equal name and position mean the same token, different names never agree."""
Segment = tuple[Stream, int]
"""The first so many tokens of a stream."""


@dataclass(frozen=True, slots=True)
class Content:
    """A prompt is the concatenation of its segments, and its answer a stream of its own.

    Prompt tokens after the segments, and outputs without a stream (None), are nobody else's. `unit` is the block
    size of a trace that names whole blocks (`hash_ids`), in tokens; 0 if segments may end anywhere.
    Raises ConfigError for a segment without tokens.
    """

    prompt: tuple[Segment, ...] = ()
    output: Stream | None = None
    unit: int = 0

    def __post_init__(self) -> None:
        for stream, tokens in self.prompt:
            if tokens < 1:
                raise ConfigError(f"a segment of a prompt needs at least 1 token but {stream!r} has {tokens}")

    @property
    def tokens(self) -> int:
        """Prompt tokens that the segments name."""
        return sum(tokens for _, tokens in self.prompt)

    def check_length(self, prompt_tokens: int) -> None:
        """Raise ConfigError if the segments hold more tokens than the prompt."""
        if self.tokens > prompt_tokens:
            raise ConfigError(
                f"the segments of a prompt hold {self.tokens} tokens but the prompt has {prompt_tokens}; shorten the "
                "last one"
            )

    def check_blocks(self, block_size: int) -> None:
        """Raise ConfigError if the trace's blocks cannot be cut into, or put together from, KV blocks of this size."""
        if self.unit and self.unit % block_size and block_size % self.unit:
            raise ConfigError(
                f"the trace's hash_ids stand for blocks of {self.unit} tokens, which KV blocks of {block_size} tokens "
                f"do not divide; choose an engine.block_size that divides {self.unit}"
            )


def from_hash_ids(
    hash_ids: Iterable[int], prompt_tokens: int, unit: int, output: Stream | None = None, where: str = "hash_ids"
) -> Content:
    """The content of a prompt whose blocks of `unit` tokens have these ids: each is a stream of `unit` tokens.

    A started last block may have an id (Mooncake), of which only the tokens that are there are shared, or none
    (LMCache), then they are private. Raises ConfigError for any other number of ids.
    """
    if unit < 1:
        raise ConfigError(f"{where}: the block size of hash_ids must be at least 1 token but got {unit}")
    ids = list(hash_ids)
    whole, rest = divmod(prompt_tokens, unit)
    if not whole <= len(ids) <= whole + bool(rest):
        raise ConfigError(
            f"{where}: a prompt of {prompt_tokens} tokens in blocks of {unit} has {whole + bool(rest)} hash_ids "
            f"({whole} without the last, partial block) but got {len(ids)}; is the block size right?"
        )
    segments = [(hash_id, unit) for hash_id in ids[:whole]]
    if len(ids) > whole:
        segments.append((ids[-1], rest))
    return Content(tuple(segments), output, unit)
