"""The tree of all content that a prefix cache holds: a branch for every stream at every place where it goes on."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmsim.core.content import Stream


class Extent:
    """Blocks `first` .. `stop - 1` of the sequences that run through `branch`, all held by the same requests.

    Without a branch they hold nothing that could be found again. `holders` are counted; with none the extent stands in
    the ring of free blocks (free_queue.py), to be reused from its last block to its first. An extent that is cut
    stays the upper part, and `below` is the lower one.
    """

    __slots__ = ("after", "before", "below", "branch", "first", "holders", "stop")

    def __init__(self, branch: Branch | None, first: int, stop: int, holders: int = 0) -> None:
        self.branch = branch
        self.first = first
        self.stop = stop
        self.holders = holders
        self.below: Extent | None = None
        self.before: Extent = self
        self.after: Extent = self

    def insert(self, before: Extent) -> None:
        """Stand behind `before` in its ring."""
        after = before.after
        self.before, self.after = before, after
        before.after = after.before = self

    def cut(self, block: int) -> Extent:
        """Cut off and return the part below `block`."""
        low = Extent(self.branch, self.first, block, self.holders)
        low.below, self.below, self.first = self.below, low, block
        if self.before is not self:  # it is free
            low.insert(self)
        return low

    def __repr__(self) -> str:
        return f"Extent({self.first}..{self.stop}, holders={self.holders})"


Column = list[Extent]
"""Copies of the same blocks in the order in which they were filled, all with the same `first` and `stop`; vLLM finds
the first of them. More than one if several requests computed the same tokens at the same time."""


class Branch:
    """One stream, from token `start` of the sequences that come through `parent` and leave it there.

    It holds the blocks whose last token is the stream's, in columns without gaps from the first on: whatever is
    freed is freed from its end, and reused so. `users` counts requests whose sequences end here.
    """

    __slots__ = ("branches", "columns", "key", "parent", "start", "users")

    def __init__(self, parent: Branch | None, key: tuple[int, Stream | tuple[int]], start: int) -> None:
        self.parent = parent
        self.key = key
        self.start = start
        self.branches: dict[tuple[int, Stream | tuple[int]], Branch] = {}
        """By the token of the sequence at which this stream is left, and the stream that follows."""
        self.columns: list[Column] = []
        self.users = 0

    def follow(self, at: int, stream: Stream | tuple[int]) -> Branch:
        """The branch that goes on with `stream` at token `at`, made if there is none."""
        key = (at, stream)
        found = self.branches.get(key)
        if found is None:
            found = self.branches[key] = Branch(self, key, at)
        return found

    def prune(self) -> None:
        """Forget this branch and those before it as far as nothing is left of them."""
        branch = self
        while branch.parent is not None and not (branch.columns or branch.branches or branch.users):
            del branch.parent.branches[branch.key]
            branch = branch.parent

    def cut(self, block: int) -> None:
        """Let no column reach from below `block` to it."""
        at = bisect_right(self.columns, block - 1, key=_first) - 1
        if at >= 0 and self.columns[at][0].stop > block:
            self.columns.insert(at, [extent.cut(block) for extent in self.columns[at]])

    def add(self, first: int, stop: int) -> list[Extent]:
        """One request has filled blocks first .. stop - 1, copies or not: they are findable from here on."""
        self.cut(first)
        self.cut(stop)
        added = []
        for column in self.columns[bisect_right(self.columns, first - 1, key=_first) :]:
            if first == stop:
                break
            extent = Extent(self, first, column[0].stop, 1)
            column.append(extent)
            added.append(extent)
            first = extent.stop
        if first < stop:
            added.append(Extent(self, first, stop, 1))
            self.columns.append(added[-1:])
        return added

    def copies(self, extent: Extent) -> Column:
        """All that hold the same blocks, this one among them."""
        return self.columns[self._column(extent)]

    def isolate(self, extent: Extent, blocks: int) -> None:
        """Where there are copies, cut all so that the last `blocks` blocks of this one are an extent."""
        if len(self.columns[self._column(extent)]) > 1:
            self.cut(extent.stop - blocks)

    def discard(self, extent: Extent) -> None:
        """What these blocks hold is lost."""
        at = self._column(extent)
        self.columns[at].remove(extent)
        if not self.columns[at]:
            del self.columns[at]
            self.prune()

    def _column(self, extent: Extent) -> int:
        return bisect_right(self.columns, extent.first, key=_first) - 1


def _first(column: Column) -> int:
    return column[0].first
