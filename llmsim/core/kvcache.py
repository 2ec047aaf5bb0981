"""Block accounting of one replica's KV cache. KVCache counts blocks; PagedKVCache of live runs adds their ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import ConfigError, SchedulerError

if TYPE_CHECKING:
    from llmsim.core.decodes import DecodeSet
    from llmsim.core.prefix.tree import Extent
    from llmsim.core.request import Request


@dataclass(slots=True)
class Hit:
    """What a request finds in a prefix cache: `blocks` from its first token on, of which nobody holds `free`.

    `extents` are where they stand, each with the block at which the request leaves it.
    """

    blocks: int = 0
    free: int = 0
    extents: list[tuple[Extent, int]] = field(default_factory=list)


NO_HIT = Hit()


@dataclass(slots=True)
class KVCache:
    """`num_blocks` blocks of `block_size` tokens, of which `watermark` (a share) is kept free at admission.

    The rules are those of vLLM v0 and its descendants (Sarathi-Serve, SLAI): a prompt is admitted only if the
    watermark stays free; growth by decoding may use the last block.
    """

    num_blocks: int
    block_size: int = 16
    watermark: float = 0.01
    free_blocks: int = 0
    watermark_blocks: int = 0
    in_flight: int = 0
    """Outputs at the end of every decode that the engine has not seen when it forms a batch (1 if it forms ahead)."""

    def __post_init__(self) -> None:
        if self.num_blocks < 1:
            raise ConfigError(f"num_blocks must be at least 1 but got {self.num_blocks}")
        if self.block_size < 1:
            raise ConfigError(f"block_size must be at least 1 but got {self.block_size}")
        if not 0 <= self.watermark < 1:
            raise ConfigError(f"watermark is a share and must be in [0, 1) but got {self.watermark}")
        self.free_blocks = self.num_blocks
        self.watermark_blocks = int(self.watermark * self.num_blocks)

    @property
    def used_blocks(self) -> int:
        """Blocks that requests hold."""
        return self.num_blocks - self.free_blocks

    def blocks_for(self, tokens: int) -> int:
        """Blocks that `tokens` tokens fill, the last one perhaps in part."""
        return -(-tokens // self.block_size)

    def can_admit(self, tokens: int, hit: Hit = NO_HIT) -> bool:
        """Whether a sequence of `tokens` tokens, of which `hit` is there, fits and leaves the watermark free."""
        return self.free_blocks + tokens // -self.block_size + hit.blocks - hit.free >= self.watermark_blocks

    def allocate(self, request: Request, tokens: int) -> None:
        """Give the request the blocks it lacks for its first `tokens` tokens.

        Raises SchedulerError if they are not free: a policy asks before it takes.
        """
        need = -(-tokens // self.block_size) - request.blocks
        if need > 0:
            self.take(need)
            request.blocks += need

    def take(self, blocks: int) -> None:
        """Take `blocks` free blocks for decodes that a DecodeSet accounts for.

        Raises SchedulerError if so many are not free.
        """
        if blocks > self.free_blocks:
            raise SchedulerError(
                f"the policy asked for {blocks} KV blocks but {self.free_blocks} of {self.num_blocks} are free; "
                "test free_blocks before allocating, and preempt"
            )
        self.free_blocks -= blocks

    def attach(self, decodes: DecodeSet, *, unhashed_first: bool = False) -> None:
        """A run begins: `decodes` are those who will grow without asking, `unhashed_first` is of a PrefixCache."""

    def match(self, request: Request) -> Hit:
        """What a request that waits would find here; nothing in a cache without prefix caching."""
        return NO_HIT

    def peek(self, request: Request, iterations: int = 0, growth: int = 0) -> int:
        """Tokens of a request that are here, `iterations` into a run whose decodes have taken `growth` blocks since."""
        return 0

    def adopt(self, request: Request, hit: Hit) -> None:
        """The request is admitted and holds what `match` has just found; before its first `allocate`."""

    def fill(self, request: Request, tokens: int) -> None:
        """The request's first `tokens` tokens are known, and computed by the batch that is being formed or before."""

    def may_find_more(self, request: Request, *, prompts: bool = False) -> bool:
        """Whether `match` may find more held blocks while decodes, and `prompts` too, go on and nobody else comes."""
        return False

    def release(self, request: Request) -> None:
        """Take back every block of the request."""
        self.free_blocks += request.blocks
        request.blocks = 0
        assert self.free_blocks <= self.num_blocks, "more KV blocks came back than the cache has"

    def withhold(self, blocks: int) -> None:
        """Remove `blocks` blocks from the pool for good (vLLM v1 keeps one as its null block)."""
        self.take(blocks)
        self.num_blocks -= blocks


@dataclass(slots=True)
class _Table:
    """One request's blocks: ids[:count] in order, of which the first `written` tokens' slots hold their KV."""

    ids: NDArray[np.int32]
    count: int = 0
    written: int = 0


@dataclass(slots=True)
class PagedKVCache(KVCache):
    """A KVCache that also knows which blocks a request holds, for a device that really has them.

    Policies count blocks, request by request or in sums (DecodeSet). Ids are handed out only when a batch is about to
    write into them, and every write is checked against the policy's own accounting, so a policy that runs tokens it
    has no room for, or whose past is gone, is stopped and does not read another request's KV.
    """

    _tables: dict[int, _Table] = field(default_factory=dict, init=False, repr=False)
    _unused: list[int] = field(default_factory=list, init=False, repr=False)
    _taken: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        KVCache.__post_init__(self)
        self._unused = list(range(self.num_blocks - 1, -1, -1))

    def pages(self, request: Request, start: int, tokens: int) -> NDArray[np.int32]:
        """Ids of the request's blocks, (blocks,), once the tokens start .. start + tokens - 1 have room; they count as
        written from here on.

        Raises SchedulerError if the KV before `start` is not there, or the policy has not taken the blocks.
        """
        table = self._tables.get(request.id)
        if table is None:
            table = self._tables[request.id] = _Table(np.empty(16, dtype=np.int32))
        if table.written < start:
            raise SchedulerError(
                f"request {request.id} is to compute tokens from position {start}, but the KV of only {table.written} "
                "tokens before it is in the cache: the policy released its blocks, or skipped a chunk"
            )
        need = self.blocks_for(start + tokens)
        if need > table.count:
            self._extend(request, table, need)
        table.written = start + tokens
        return table.ids[: table.count]

    def _extend(self, request: Request, table: _Table, need: int) -> None:
        more = need - table.count
        if self._taken + more > self.used_blocks:
            raise SchedulerError(
                f"request {request.id} needs {more} more KV blocks to hold {need}, but the policy has taken only "
                f"{self.used_blocks} blocks for everyone and {self._taken} are filled; allocate before scheduling"
            )
        if need > len(table.ids):
            table.ids = np.concatenate([table.ids, np.empty(max(need, len(table.ids)), dtype=np.int32)])
        table.ids[table.count : need] = self._unused[: -more - 1 : -1]
        del self._unused[-more:]
        table.count = need
        self._taken += more

    def release(self, request: Request) -> None:
        """Take back every block of the request, ids too."""
        KVCache.release(self, request)
        table = self._tables.pop(request.id, None)
        if table is not None:
            self._unused += table.ids[: table.count][::-1].tolist()
            self._taken -= table.count
