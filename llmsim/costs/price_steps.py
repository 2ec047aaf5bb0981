"""Where one more of something makes a batch cheaper, or much dearer: what `llmsim calibrations show` says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.core.batch import Work

if TYPE_CHECKING:
    from llmsim.costs.base import CostModel
    from llmsim.costs.box import Box

JUMP = 0.05
"""What one token more may add before it is called a jump."""
CONTEXT = 1024
MOST = 4096
"""Tokens up to which every size of a prompt is looked at."""


@dataclass(frozen=True, slots=True)
class Step:
    """One more of something (`what`, from `size` on) changes the price by `change`, a share: a fall below 0."""

    what: str
    size: int
    change: float


def steps(model: CostModel, box: Box) -> list[Step]:
    """The worst fall and the worst jump by one token, decode, or token of past and context, if there are any.

    A jump is more than JUMP and more than half as much again as the share of what is one more.
    """
    found = []
    for what, sizes, work in _ladders(box):
        changes = []
        for size in sizes:
            less, more = model.femtoseconds(work(size)), model.femtoseconds(work(size + 1))
            changes.append(Step(what, size, more / less - 1))
        if not changes:
            continue
        lowest, highest = (pick(changes, key=lambda step: step.change) for pick in (min, max))
        if lowest.change < -1e-6:
            found.append(lowest)
        if highest.change > max(JUMP, 1.5 / max(1, highest.size)):
            found.append(highest)
    return found


def _ends(box: Box, quantity: str) -> tuple[int, int]:
    held = box.range(quantity)
    return (1, 1) if held is None else (max(1, held.low), max(1, held.high))


def _ladders(box: Box) -> Iterator[tuple[str, range, Callable[[int], Work]]]:
    prompt, decodes = _ends(box, "prefill_tokens")[1], _ends(box, "decode_tokens")[1]
    past = _ends(box, "prefill_context")[1]
    yield "prompt token", range(1, min(prompt, MOST)), lambda size: _chunk(size, 0)
    if past > 1:
        yield f"token of a chunk on {past:,}", range(1, min(prompt, MOST)), lambda size: _chunk(size, past)
        yield "token of past of a chunk of 128", range(0, past, 61), lambda size: _chunk(128, size)
    yield f"decode, context {CONTEXT:,}", range(1, decodes), lambda count: _alone(count, CONTEXT)
    yield "token of context of one decode", range(1, CONTEXT * 8, 7), lambda size: _alone(1, size)


def _chunk(tokens: int, past: int) -> Work:
    return Work(tokens, 1, past, tokens * past + tokens * (tokens + 1) // 2)


def _alone(count: int, context: int) -> Work:
    return Work(decode_tokens=count, decode_context=count * context, decode_longest=context)
