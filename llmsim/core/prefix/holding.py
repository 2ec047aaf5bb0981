"""Holding: what one request holds of a prefix cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmsim.core.prefix.tree import Branch, Extent

if TYPE_CHECKING:
    from llmsim.core.content import Stream
    from llmsim.core.kvcache import Hit
    from llmsim.core.request import Request

ENDLESS = 1 << 60
"""Tokens of the last stream of a sequence: its outputs."""


@dataclass(slots=True, eq=False)
class Holding:
    """A request's way through the tree, and its findable blocks along it."""

    request: Request
    way: list[tuple[Branch, int]]
    """The branches of its sequence, each with the block at which the sequence leaves it."""
    at: int = 0
    """The branch in which its next block will stand."""
    blocks: int = 0
    """Blocks that are findable."""
    extents: list[tuple[Extent, int]] = field(default_factory=list)
    """In order; each with the first block that this request holds of it, whatever has been cut off below since."""

    def downwards(self) -> Iterator[Extent]:
        """The extents from the last block to the first, as they are cut by now."""
        for last, first in reversed(self.extents):
            extent = last
            while extent.first != first:
                assert extent.below is not None
                below = extent.below
                yield extent
                extent = below
            yield extent


@dataclass(slots=True)
class Freed:
    """What a request has let go: `unhashed` blocks, `hashed` ones that nobody will ask for, and those of its holding.

    `rank` is its place among those who end at the same time.
    """

    rank: int
    unhashed: int
    hashed: int
    holding: Holding | None

    def extents(self) -> Iterator[Extent]:
        """Those that nobody holds any more, the last block first."""
        if self.holding is not None:
            yield from (extent for extent in self.holding.downwards() if not extent.holders)

    def blocks(self) -> int:
        """Blocks that have become free."""
        return self.unhashed + self.hashed + sum(extent.stop - extent.first for extent in self.extents())


def collect(branch: Branch, stop: int, hit: Hit) -> None:
    """Add to the hit what the branch holds of the blocks that follow, before `stop`."""
    for column in branch.columns:
        if hit.blocks >= stop:
            return
        extent = column[0]
        until = min(extent.stop, stop)
        if not extent.holders:
            hit.free += until - hit.blocks
        hit.blocks = until
        hit.extents.append((extent, until))


def segments(request: Request) -> Iterator[tuple[Stream | tuple[int], int]]:
    """The streams of its sequence with their lengths; what is nobody else's is a stream of the request's own."""
    content = request.content
    if content is None:
        yield (request.id,), ENDLESS
        return
    yield from content.prompt
    named = content.output is not None and content.tokens == request.prompt_tokens
    yield (content.output if named and content.output is not None else (request.id,)), ENDLESS
