"""FreeQueue: the free KV blocks in the order in which they are reused, in extents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmsim.core.prefix.holding import Freed
from llmsim.core.prefix.tree import Extent

if TYPE_CHECKING:
    from llmsim.core.kvcache import Hit


class FreeQueue:
    """A ring of extents around `_end`, where one is put in and taken out anywhere in no time; `blocks` counts all."""

    def __init__(self, blocks: int) -> None:
        self._end = Extent(None, 0, 0)
        self.blocks = 0
        self.append_unhashed(blocks)

    @property
    def head(self) -> Extent:
        """The extent whose last block is reused next."""
        return self._end.after

    def append(self, extent: Extent) -> None:
        """To be reused last."""
        self.blocks += extent.stop - extent.first
        extent.insert(self._end.before)

    def append_unhashed(self, blocks: int) -> None:
        """Blocks that hold nothing to be found again, to be reused last."""
        if not blocks:
            return
        tail = self._end.before
        if tail.branch is not None or tail is self._end:
            tail = Extent(None, 0, 0)
            tail.insert(self._end.before)
        tail.stop += blocks
        self.blocks += blocks

    def prepend_unhashed(self, blocks: int) -> None:
        """Blocks that hold nothing to be found again, to be reused first."""
        if not blocks:
            return
        head = self._end.after
        if head.branch is not None or head is self._end:
            head = Extent(None, 0, 0)
            head.insert(self._end)
        head.stop += blocks
        self.blocks += blocks

    def add(self, *freed: Freed, unhashed_first: bool) -> None:
        """What requests have let go at the same time, in this order; what two held is with the later one."""
        last = {extent: at for at, one in enumerate(freed) for extent in one.extents()}
        for at, one in enumerate(freed):
            if unhashed_first:
                self.prepend_unhashed(one.unhashed)
            else:
                self.append_unhashed(one.unhashed)
            self.append_unhashed(one.hashed)
            for extent in one.extents():
                if last[extent] == at:
                    self.append(extent)

    def remove(self, extent: Extent) -> None:
        """Take it out: somebody holds its blocks again."""
        self.blocks -= extent.stop - extent.first
        extent.before.after = extent.after
        extent.after.before = extent.before
        extent.before = extent.after = extent

    def outlive(self, blocks: int, hit: Hit) -> int:
        """How many blocks of a hit are still findable when the first `blocks` blocks of the queue have been reused."""
        gone: dict[Extent, int] = {}
        extent = self._end.after
        while blocks > 0:
            gone[extent] = min(blocks, extent.stop - extent.first)
            blocks -= gone[extent]
            extent = extent.after
        for found, until in hit.extents:
            assert found.branch is not None
            left = max(copy.stop - gone.get(copy, 0) for copy in found.branch.copies(found))
            if left < until:
                return left
        return hit.blocks

    def reuse(self, blocks: int) -> None:
        """Take out the first `blocks` blocks (at most all); what they hold is lost."""
        while blocks > 0:
            extent = self._end.after
            taken = min(blocks, extent.stop - extent.first)
            if extent.branch is not None and taken < extent.stop - extent.first:
                extent.branch.isolate(extent, taken)
            if taken < extent.stop - extent.first:
                extent.stop -= taken
                self.blocks -= taken
            else:
                self.remove(extent)
                if extent.branch is not None:
                    extent.branch.discard(extent)
            blocks -= taken
