"""InfiniteCache: how much of their prompts requests would find in a prefix cache that never forgets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmsim.core.content import Content, Stream


@dataclass(slots=True)
class _Reach:
    """How far the prompts that came here have gone along a stream, and where they went on."""

    tokens: int = 0
    further: dict[tuple[int, Stream], _Reach] = field(default_factory=dict)


class InfiniteCache:
    """Prompts in order; what they have in common with earlier ones is found in whole blocks of `block_size` tokens.

    At least the last token of a prompt is computed. Answers are not in it, so a real engine may find a little more.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.requests = self.requests_with_hit = self.prompt_tokens = self.cached_tokens = 0
        self._root = _Reach()

    def add(self, content: Content | None, prompt_tokens: int) -> int:
        """The next prompt; returns the tokens of it that are found."""
        found = self._follow(content) if content is not None else 0
        cached = min(found, prompt_tokens - 1) // self.block_size * self.block_size
        self.requests += 1
        self.requests_with_hit += cached > 0
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += cached
        return cached

    def _follow(self, content: Content) -> int:
        """Tokens that earlier prompts have in common with this one; it is there from now on."""
        reach, left_at, found, known = self._root, 0, 0, True
        for stream, tokens in content.prompt:
            onward = reach.further.get((left_at, stream))
            if onward is None:
                onward = reach.further[left_at, stream] = _Reach()
            if known:
                found += min(onward.tokens, tokens)
                known = onward.tokens >= tokens
            onward.tokens = max(onward.tokens, tokens)
            reach, left_at = onward, tokens
        return found

    @property
    def token_hit_rate(self) -> float | None:
        """Share of the prompt tokens that are found; None without any."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None

    @property
    def request_hit_rate(self) -> float | None:
        """Share of the requests that find something; None without any."""
        return self.requests_with_hit / self.requests if self.requests else None
