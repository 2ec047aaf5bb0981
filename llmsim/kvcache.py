"""Block accounting of one replica's KV cache. It counts blocks; PagedKVCache of live runs adds their ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError, SchedulerError

if TYPE_CHECKING:
    from llmsim.request import Request


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

    def can_admit(self, tokens: int) -> bool:
        """Whether a sequence of `tokens` tokens fits and leaves the watermark free."""
        return self.free_blocks + tokens // -self.block_size >= self.watermark_blocks

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

    def release(self, request: Request) -> None:
        """Take back every block of the request."""
        self.free_blocks += request.blocks
        request.blocks = 0
        assert self.free_blocks <= self.num_blocks, "more KV blocks came back than the cache has"

    def withhold(self, blocks: int) -> None:
        """Remove `blocks` blocks from the pool for good (vLLM v1 keeps one as its null block)."""
        self.take(blocks)
        self.num_blocks -= blocks
