"""DecodeSet equals a plain list of decodes, whatever joins, leaves, advances and finishes."""

from __future__ import annotations

import numpy as np
import pytest

from llmsim.core.decodes import DecodeSet
from llmsim.core.request import Request


class PlainDecodes:
    """The same, one request at a time."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.members: dict[int, tuple[Request, int, int]] = {}  # request, length, blocks

    def needed(self, request: Request) -> int:
        _, length, blocks = self.members[request.id]
        return max(0, -(-length // self.block_size) - blocks)

    def advance(self) -> list[int]:
        done = []
        for i, (request, length, blocks) in list(self.members.items()):
            blocks = max(blocks, -(-length // self.block_size))
            self.members[i] = (request, length + 1, blocks)
            if length + 1 - request.prompt_tokens == request._output_target:
                done.append(i)
        return done


@pytest.mark.parametrize("block_size", [1, 2, 16])
@pytest.mark.parametrize("seed", range(8))
def test_sums_blocks_and_finishes_match_a_plain_list(block_size, seed):
    rng = np.random.default_rng(seed)
    decodes, plain = DecodeSet(block_size), PlainDecodes(block_size)
    for step in range(400):
        if rng.random() < 0.3:
            request = Request(step, 0, int(rng.integers(1, 60)), int(rng.integers(2, 90)))
            request.generated = int(rng.integers(0, 2))  # engines of both semantics
            request.blocks = -(-request.prompt_tokens // block_size)
            plain.members[step] = (request, request.length, request.blocks)
            decodes.join(request)
        if plain.members and rng.random() < 0.15:
            request, length, blocks = plain.members.pop(int(rng.choice(list(plain.members))))
            decodes.leave(request)
            assert (request.length, request.blocks) == (length, blocks)
        if not plain.members:
            continue
        members = [entry[0] for entry in plain.members.values()]
        assert decodes.size == len(members)
        assert decodes.context == sum(entry[1] for entry in plain.members.values())
        assert decodes.blocks_needed() == sum(plain.needed(r) for r in members)
        assert [decodes.needs_block(r) for r in members] == [plain.needed(r) > 0 for r in members]
        steps = int(rng.integers(1, decodes.steps_to_finish() + 1))
        growth = decodes.blocks_needed() + decodes.growth(1, steps - 1)
        before = sum(entry[2] for entry in plain.members.values())
        done: list[int] = []
        for _ in range(steps):
            assert not done
            done = plain.advance()
        assert growth == sum(entry[2] for entry in plain.members.values()) - before
        finished = decodes.advance(steps)
        assert sorted(r.id for r in finished) == sorted(done)
        for request in finished:
            _, length, blocks = plain.members.pop(request.id)
            assert (request.length, request.blocks) == (length, blocks)


def test_unpaged_members_never_need_a_block():
    decodes = DecodeSet(16, paged=False)
    request = Request(0, 0, 16, 50)
    request.blocks = 3
    decodes.join(request)
    assert decodes.blocks_needed() == decodes.growth(1, 49) == 0
    (finished,) = decodes.advance(50)
    assert finished.blocks == 3


def test_members_that_share_a_finish_leave_in_the_order_they_joined():
    decodes = DecodeSet(16)
    for i in (5, 2, 9):
        decodes.join(Request(i, 0, 10, 4))
    assert [r.id for r in decodes.advance(4)] == [5, 2, 9]


def test_who_left_does_not_finish_whether_its_last_step_is_passed_or_met():
    decodes = DecodeSet(16)
    passed, met, last = (Request(i, 0, 10, outputs) for i, outputs in enumerate((3, 5, 9)))
    assert decodes.longest == 0
    for request in (passed, met, last):
        decodes.join(request)
    decodes.leave(passed)
    decodes.leave(met)
    assert list(decodes.advance(5)) == []
    assert decodes.longest == 15
    assert [r.id for r in decodes.advance(4)] == [last.id]
    assert (passed.generated, last.generated) == (0, 9)
