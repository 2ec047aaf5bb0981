"""DecodeSet: all running decodes of a replica as a few sums, advanced lazily.

Near saturation nearly every iteration carries a prefill, so an iteration must not cost O(decodes). What an
iteration needs of them is a count, the sum of their lengths, how many enter a new KV block, and who finishes.
All four are kept without touching a member: a member stores its length as an anchor relative to the set's
step counter, the block boundaries sit in a ring over the step modulo the block size, and the finishes in
buckets by step. A request is exact again (`generated`, `blocks`) once it has left the set.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from llmsim.errors import SchedulerError

if TYPE_CHECKING:
    from collections.abc import Collection

    from llmsim.core.request import Request


class DecodeSet:
    """Requests that each emit one token whenever the set is advanced by one step.

    `size` members, `context` the sum of their lengths in tokens (prompt and outputs), `step` how often the set
    has advanced. With `paged` false members hold a fixed reservation and never grow (Orca, FasterTransformer).
    """

    __slots__ = (
        "_finish_heap",
        "_finishing",
        "_longest",
        "_members",
        "_prepaid",
        "_ring",
        "block_size",
        "context",
        "paged",
        "size",
        "step",
    )

    def __init__(self, block_size: int, *, paged: bool = True) -> None:
        self.block_size = block_size
        self.paged = paged
        self.size = 0
        self.context = 0
        self.step = 0
        self._ring = [0] * block_size
        self._prepaid = 0
        self._longest: int | None = None  # greatest anchor; None: not known
        self._members: dict[int, Request] = {}
        self._finishing: dict[int, dict[int, Request]] = {}
        self._finish_heap: list[int] = []

    def __contains__(self, request: Request) -> bool:
        return request.id in self._members

    @property
    def members(self) -> Collection[Request]:
        """The requests, in the order in which they joined; their `generated` and `blocks` are stale."""
        return self._members.values()

    @property
    def longest(self) -> int:
        """Tokens of the longest member's sequence at this step; 0 if there is none."""
        if not self._members:
            return 0
        if self._longest is None:
            self._longest = max(request.slot_anchor for request in self._members.values())
        return self._longest + self.step

    def length(self, request: Request) -> int:
        """Tokens of a member's sequence at this step."""
        return request.slot_anchor + self.step

    def since(self, request: Request) -> int:
        """The step, as `token_ranges` count them, from which on a member has emitted or will emit here."""
        return request.slot_start

    def join(self, request: Request) -> None:
        """Add a request whose prefill is complete; it decodes from the next step on.

        Raises SchedulerError if it holds more KV blocks than its length fills: growth is counted from there.
        """
        step, block_size = self.step, self.block_size
        length = request.prompt_tokens + request.generated
        if self.paged and request.blocks > -(-length // block_size):
            raise SchedulerError(
                f"request {request.id} holds {request.blocks} KV blocks for {length} tokens when it begins to decode; "
                "allocate its prefill_tokens, not more (or set paged = False and reserve for good)"
            )
        anchor = request.slot_anchor = length - step
        request.slot_start = step
        if self._longest is not None and anchor > self._longest:
            self._longest = anchor
        self.size += 1
        self.context += length
        self._members[request.id] = request
        self._ring[(1 - anchor) % block_size] += 1
        if length % block_size == 1 % block_size and request.blocks * block_size >= length:
            self._prepaid += 1  # the block for this length came with the prompt: it is not due at the first step
        finish = request._slot_finish = step + request._output_target - request.generated
        bucket = self._finishing.get(finish)
        if bucket is None:
            self._finishing[finish] = {request.id: request}
            heappush(self._finish_heap, finish)
        else:
            bucket[request.id] = request

    def leave(self, request: Request) -> None:
        """Take out a member (preempted, or held back by its policy) and make its counters exact."""
        if request.slot_start == self.step and self._holds_next(request) and self._at_boundary(request):
            self._prepaid -= 1
        self._remove(request)
        del self._finishing[request._slot_finish][request.id]

    def blocks_needed(self) -> int:
        """New KV blocks that the next step takes."""
        return self._ring[self.step % self.block_size] - self._prepaid if self.paged else 0

    def growth(self, first: int, count: int) -> int:
        """New KV blocks that the steps first .. first + count - 1 after this one take (first >= 1)."""
        if not self.paged:
            return 0
        size = self.block_size
        begin = (self.step + first) % size
        end = begin + count
        if end <= size:  # most runs are short
            return sum(self._ring[begin:end])
        rounds, rest = divmod(end - size, size)  # whole rounds after the first, and what is left of the last
        return sum(self._ring[begin:]) + rounds * self.size + sum(self._ring[:rest])

    def needs_block(self, request: Request) -> bool:
        """Whether this member takes a new KV block at the next step."""
        return (
            self.paged
            and self._at_boundary(request)
            and not (request.slot_start == self.step and self._holds_next(request))
        )

    def steps_to_finish(self) -> int:
        """Steps after which the first member finishes (the oracle: for the replica only)."""
        heap, finishing = self._finish_heap, self._finishing
        while not finishing[heap[0]]:  # its members left before they finished
            del finishing[heappop(heap)]
        return heap[0] - self.step

    def advance(self, steps: int = 1) -> Collection[Request]:
        """Every member emits `steps` tokens; those that are done leave and are returned, in join order.

        `steps` may not exceed steps_to_finish().
        """
        self.step = step = self.step + steps
        self.context += self.size * steps
        self._prepaid = 0
        heap = self._finish_heap
        if not heap or heap[0] > step:
            return ()
        while heap and heap[0] < step:  # buckets that emptied before their time
            del self._finishing[heappop(heap)]
        finished = self._finishing.pop(step, None)
        if finished is None:
            return ()
        heappop(heap)
        for request in finished.values():
            self._remove(request)
        return finished.values()

    def ring(self) -> tuple[int, ...]:
        """New KV blocks by step modulo the block size (empty if not paged), without the prepaid ones."""
        return tuple(self._ring) if self.paged else ()

    def _remove(self, request: Request) -> None:
        step, anchor, block_size = self.step, request.slot_anchor, self.block_size
        length = anchor + step
        request.generated = length - request.prompt_tokens
        if self.paged:
            blocks = -((1 - length) // block_size)  # the last decode ran at length - 1
            if blocks > request.blocks:
                request.blocks = blocks
        if step > request.slot_start:
            request.token_ranges += (request.slot_start, step - 1)
        self.size -= 1
        self.context -= length
        self._ring[(1 - anchor) % block_size] -= 1
        if anchor == self._longest:
            self._longest = None
        del self._members[request.id]

    def _at_boundary(self, request: Request) -> bool:
        return (request.slot_anchor + self.step - 1) % self.block_size == 0

    def _holds_next(self, request: Request) -> bool:
        return request.blocks * self.block_size >= request.slot_anchor + self.step
