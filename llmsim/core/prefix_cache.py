"""PrefixCache: the KV cache of vLLM v1 with `enable_prefix_caching`, block for block, in extents.

A block is findable once its tokens are known and a batch computes them. It stays so after its last holder has
released it, until its turn in the queue of free blocks comes. A request that is admitted holds the blocks that
begin its own sequence (`match`, `adopt`) and computes what comes after them.

As vllm/v1/core: block_pool.py, kv_cache_manager.py and single_type_kv_cache_manager.py of 0.19 and 0.33, for one group
of layers with full attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmsim.core.free_queue import FreeQueue
from llmsim.core.kvcache import Hit, KVCache
from llmsim.core.prefix_tree import Branch, Extent

if TYPE_CHECKING:
    from llmsim.core.content import Stream
    from llmsim.core.decodes import DecodeSet
    from llmsim.core.request import Request

ENDLESS = 1 << 60
"""Tokens of the last stream of a sequence: its outputs."""


@dataclass(slots=True)
class Holding:
    """What one request holds: its way through the tree, and its findable blocks along it."""

    request: Request
    way: list[tuple[Branch, int]]
    """The branches of its sequence, each with the block at which the sequence leaves it."""
    at: int = 0
    """The branch in which its next block will stand."""
    blocks: int = 0
    """Blocks that are findable."""
    extents: list[tuple[Extent, int]] = field(default_factory=list)
    """In order; each with the first block that this request holds of it, whatever has been cut off below since."""


@dataclass(slots=True)
class PrefixCache(KVCache):
    """A KVCache whose blocks are found again by their content.

    Free blocks may still hold something. With `unhashed_first` (vLLM 0.33) those that hold nothing are reused before
    all others, else in turn (0.19).
    """

    unhashed_first: bool = False
    _queue: FreeQueue = field(init=False, repr=False)
    _root: Branch = field(init=False, repr=False)
    _holdings: dict[int, Holding] = field(default_factory=dict, init=False, repr=False)
    _growing: dict[Branch, list[Holding]] = field(default_factory=dict, init=False, repr=False)
    """Branches of outputs that others may ask for, and who emits there: looked at only when somebody asks."""
    _decodes: DecodeSet | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        KVCache.__post_init__(self)
        self._queue = FreeQueue(self.num_blocks)
        self._root = Branch(None, (0, ""), 0)

    def attach(self, decodes: DecodeSet, *, unhashed_first: bool = False) -> None:
        """The set whose members fill blocks without saying so, and which free blocks are reused first."""
        self._decodes = decodes
        self.unhashed_first = unhashed_first

    def match(self, request: Request) -> Hit:
        """The blocks that a request which is to compute `prefill_tokens` finds, all but its last token at most."""
        self._settle()
        limit = (request.prefill_tokens - 1) // self.block_size
        hit = Hit()
        for branch, leaves in self._known_way(request):
            stop = min(limit, leaves)
            if branch in self._growing:
                self._grow(branch, self.in_flight)
            self._collect(branch, stop, hit)
            if hit.blocks < stop or stop == limit:
                break
        return hit

    def _known_way(self, request: Request) -> Iterator[tuple[Branch, int]]:
        """The branches of its sequence as far as there are any, each with the block at which it is left."""
        branch, at = self._root, 0
        for stream, tokens in _segments(request):
            found = branch.branches.get((at, stream))
            if found is None:
                return
            branch = found
            at += tokens
            yield branch, at // self.block_size

    @staticmethod
    def _collect(branch: Branch, stop: int, hit: Hit) -> None:
        for column in branch.columns:
            if hit.blocks >= stop:
                return
            extent = column[0]
            until = min(extent.stop, stop)
            if not extent.holders:
                hit.free += until - hit.blocks
            hit.blocks = until
            hit.extents.append((extent, until))

    def adopt(self, request: Request, hit: Hit) -> None:
        """The request is admitted and holds what it has found."""
        holding = Holding(request, [])
        branch, at = self._root, 0
        for stream, tokens in _segments(request):
            branch = branch.follow(at, stream)
            at += tokens
            holding.way.append((branch, at // self.block_size))
        branch.users += 1
        for found, until in hit.extents:
            extent = found
            if until < extent.stop:
                assert extent.branch is not None
                extent.branch.cut(until)
                assert extent.below is not None
                extent = extent.below
            if not extent.holders:
                self._queue.remove(extent)
            extent.holders += 1
            holding.extents.append((extent, extent.first))
        request.blocks = holding.blocks = hit.blocks
        self.free_blocks = self._queue.blocks
        self._holdings[request.id] = holding
        if branch.key[1] != (request.id,):
            self._growing.setdefault(branch, []).append(holding)

    def fill(self, request: Request, tokens: int) -> None:
        """The request's first `tokens` tokens are known, and computed by the batch that is being formed or before."""
        holding = self._holdings[request.id]
        blocks = tokens // self.block_size
        if holding.blocks < blocks:
            if self._growing:
                for branch, _ in holding.way[holding.at :]:
                    if branch in self._growing:
                        self._grow(branch, self.in_flight + 1, holding, blocks)
            self._fill(holding, blocks)

    def may_find_more(self, request: Request) -> bool:
        """Whether others emit what this request asks for."""
        return bool(self._growing) and any(way[0] in self._growing for way in self._known_way(request))

    def _fill(self, holding: Holding, blocks: int) -> None:
        while holding.blocks < blocks:
            branch, leaves = holding.way[holding.at]
            stop = min(blocks, leaves)
            if holding.blocks < stop:
                self._extend(holding, branch, stop)
            if stop == leaves:
                holding.at += 1

    def _extend(self, holding: Holding, branch: Branch, stop: int) -> None:
        first = holding.blocks
        holding.blocks = stop
        if holding.extents:
            last, _ = holding.extents[-1]
            if last.stop == first and last.holders == 1 and branch.columns and branch.columns[-1] == [last]:
                last.stop = stop
                return
        holding.extents += [(extent, extent.first) for extent in branch.add(first, stop)]

    def _grow(self, branch: Branch, unknown: int, one: Holding | None = None, its: int = 0) -> None:
        """Fill the blocks of those who emit here, in the order in which they did; all but the last `unknown` tokens
        of each are known and computed, and `its` blocks of the `one` of whom more is known."""
        size, decodes = self.block_size, self._decodes
        assert decodes is not None
        growing = []
        for holding in self._growing[branch]:
            request = holding.request
            if holding is one:
                if request.computed >= request.prefill_tokens:
                    growing.append((holding, its))
            elif request in decodes:
                growing.append((holding, (decodes.length(request) - unknown) // size))
            elif request.computed >= request.prefill_tokens:  # it sits this batch out, or has emitted its last token
                growing.append((holding, (request.length - 1 - self.in_flight) // size))
        if len(growing) == 1:
            self._fill(*growing[0])
            return
        due = [
            (block * size - holding.request.slot_anchor, holding.request.rank, holding, block)
            for holding, blocks in growing
            for block in range(holding.blocks + 1, blocks + 1)
        ]
        for _, _, holding, block in sorted(due, key=lambda one: one[:2]):
            self._fill(holding, block)

    def release(self, request: Request) -> None:
        """Take back every block of the request; what it has filled stays findable.

        All but its last output are known and computed, or as much less as the engine has not seen; an engine that
        has seen more says so before (`fill`).
        """
        self._settle()
        decoding = request.computed >= request.prefill_tokens
        self.fill(request, request.length - 1 - self.in_flight if decoding else request.computed)
        holding = self._holdings.pop(request.id)
        branch = holding.way[-1][0]
        if branch in self._growing:
            self._growing[branch].remove(holding)
            if not self._growing[branch]:
                del self._growing[branch]
        unhashed = request.blocks - holding.blocks
        request.blocks = 0
        if unhashed and self.unhashed_first:
            self._queue.prepend_unhashed(unhashed)
        elif unhashed:
            self._queue.append_unhashed(unhashed)
        for extent in _downwards(holding):
            extent.holders -= 1
            if not extent.holders:
                self._queue.append(extent)
        self.free_blocks = self._queue.blocks
        branch.users -= 1
        branch.prune()

    def _settle(self) -> None:
        """Reuse the free blocks that have been taken since; policies count them down without asking which."""
        taken = self._queue.blocks - self.free_blocks
        assert taken >= 0, "blocks became free that nobody released"
        self._queue.reuse(taken)


def _segments(request: Request) -> Iterator[tuple[Stream | tuple[int], int]]:
    """The streams of its sequence with their lengths; what is nobody else's is a stream of the request's own."""
    content = request.content
    if content is None:
        yield (request.id,), ENDLESS
        return
    yield from content.prompt
    named = content.output is not None and content.tokens == request.prompt_tokens
    yield (content.output if named and content.output is not None else (request.id,)), ENDLESS


def _downwards(holding: Holding) -> Iterator[Extent]:
    """What the request holds from the last block to the first, as it is cut by now."""
    for last, first in reversed(holding.extents):
        extent = last
        while True:
            below = extent.below
            lowest = extent.first == first
            yield extent
            if lowest:
                break
            assert below is not None
            extent = below
