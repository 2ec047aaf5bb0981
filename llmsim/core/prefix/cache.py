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
from operator import attrgetter
from typing import TYPE_CHECKING

from llmsim.core.kvcache import NO_HIT, Hit, KVCache
from llmsim.core.prefix.free_queue import FreeQueue
from llmsim.core.prefix.holding import ENDLESS, Freed, Holding, collect, segments
from llmsim.core.prefix.tree import Branch
from llmsim.core.request import NEVER

if TYPE_CHECKING:
    from llmsim.core.decodes import DecodeSet
    from llmsim.core.request import Request


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
    _freed: list[Freed] = field(default_factory=list, init=False, repr=False)
    """What those who ended at `_freed_ns` held, until somebody asks."""
    _freed_ns: int = field(default=NEVER, init=False, repr=False)
    _ahead: int = field(default=0, init=False, repr=False)
    """Iterations that decodes have run since their lengths were brought up to date."""
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
        if request.content is None and not request.preemptions:
            return NO_HIT
        self._settle()
        limit = (request.prefill_tokens - 1) // self.block_size
        hit = Hit()
        for branch, leaves in self._known_way(request):
            stop = min(limit, leaves)
            if branch in self._growing:
                self._grow(branch, ENDLESS)
            collect(branch, stop, hit)
            if hit.blocks < stop or stop == limit:
                break
        return hit

    def peek(self, request: Request, iterations: int = 0, growth: int = 0) -> int:
        """Tokens that it would find now, `iterations` into a run for which decodes have taken `growth` blocks since."""
        self._ahead = iterations
        hit = self.match(request)
        self._ahead = 0
        return self._queue.outlive(growth, hit) * self.block_size

    def _known_way(self, request: Request) -> Iterator[tuple[Branch, int]]:
        """The branches of its sequence as far as there are any, each with the block at which it is left."""
        branch, at = self._root, 0
        for stream, tokens in segments(request):
            found = branch.branches.get((at, stream))
            if found is None:
                return
            branch = found
            at += tokens
            yield branch, at // self.block_size

    def adopt(self, request: Request, hit: Hit) -> None:
        """The request is admitted and holds what it has found."""
        if request.content is None and not hit.blocks:
            return  # nobody will ask for its blocks, unless it is preempted (`release`)
        holding = self._hold(request)
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

    def _hold(self, request: Request) -> Holding:
        """Its way through the tree, made where it is new."""
        if request.content is not None:
            request.content.check_blocks(self.block_size)
        branch, at = self._root, 0
        way = []
        for stream, tokens in segments(request):
            branch = branch.follow(at, stream)
            at += tokens
            way.append((branch, at // self.block_size))
        branch.users += 1
        holding = self._holdings[request.id] = Holding(request, way)
        if branch.key[1] != (request.id,):
            self._growing.setdefault(branch, []).append(holding)
        return holding

    def fill(self, request: Request, tokens: int) -> None:
        """The request's first `tokens` tokens are known, and computed by the batch that is being formed or before."""
        holding = self._holdings.get(request.id)
        if holding is None:
            if request.computed < request.prefill_tokens:
                return
            holding = self._hold(request)
        blocks = tokens // self.block_size
        if holding.blocks < blocks:
            if self._growing:
                for branch, _ in holding.way[holding.at :]:
                    if branch in self._growing:
                        self._grow(branch, request.rank, holding, blocks)
            self._fill(holding, blocks)

    def may_find_more(self, request: Request, *, prompts: bool = False) -> bool:
        """Whether others emit, or compute, what this request asks for."""
        if prompts and request.content is not None:
            return True
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

    def _grow(self, branch: Branch, rank: int, one: Holding | None = None, its: int = 0) -> None:
        """Fill the blocks of those who emit here, in the order in which they did, with `its` blocks of the `one`.

        The batch that is being formed has served those whose rank is below `rank`: their last token is computed, if
        it is known.
        """
        size, decodes = self.block_size, self._decodes
        assert decodes is not None
        growing = []
        for holding in self._growing[branch]:
            request = holding.request
            if holding is one:
                if request.computed >= request.prefill_tokens:
                    growing.append((holding, its))
            elif request in decodes:
                served = request.rank < rank
                known = decodes.length(request) + self._ahead - self.in_flight - (not served)
                growing.append((holding, known // size))
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
        tokens = request.computed
        if tokens >= request.prefill_tokens:  # it decodes
            tokens = max(tokens, request.prompt_tokens + request.generated - 1 - self.in_flight)
        blocks = tokens // self.block_size
        ended = request.finish_ns != NEVER and not self.in_flight
        if ended and not self._holdings and not self._freed:
            self._free(request, blocks)
            return
        holding = self._holdings.get(request.id)
        if not (ended and self._freed and self._freed_ns == request.finish_ns):
            self._settle()
        self._freed_ns = request.finish_ns
        if holding is None and not ended:
            holding = self._hold(request)
        if holding is None:
            freed = Freed(request.rank, request.blocks - blocks, blocks, None)
        else:
            self._let_go(holding, blocks)
            freed = Freed(request.rank, request.blocks - holding.blocks, 0, holding)
        request.blocks = 0
        self._freed.append(freed)
        self.free_blocks += freed.blocks()
        if not ended:
            self._settle()

    def _let_go(self, holding: Holding, blocks: int) -> None:
        """It has filled so many blocks, and holds none any more."""
        branch = holding.way[-1][0]
        if branch in self._growing:
            self._grow(branch, 0, holding, blocks)
        self._fill(holding, blocks)
        del self._holdings[holding.request.id]
        if branch in self._growing:
            self._growing[branch].remove(holding)
            if not self._growing[branch]:
                del self._growing[branch]
        for extent in holding.downwards():
            extent.holders -= 1
        branch.users -= 1
        branch.prune()

    def _free(self, request: Request, hashed: int) -> None:
        """Blocks of one who has ended while nobody shares anything: only their turn counts."""
        unhashed = 0
        if self.unhashed_first:
            self._settle()
            unhashed = request.blocks - hashed
            self._queue.prepend_unhashed(unhashed)
        self._queue.append_unhashed(request.blocks - unhashed)
        self.free_blocks += request.blocks
        request.blocks = 0

    def _settle(self) -> None:
        """Queue what has been freed, as vLLM does in the order of its batch, and reuse what has been taken since:
        policies count free blocks down without asking which."""
        if self._freed:
            self._queue.add(*sorted(self._freed, key=attrgetter("rank")), unhashed_first=self.unhashed_first)
            self._freed.clear()
        taken = self._queue.blocks - self.free_blocks
        assert taken >= 0, "blocks became free that nobody released"
        self._queue.reuse(taken)
