"""Whether a model with a negative coefficient still prices every batch of its box above zero.

Within a stratum the price is linear in prompt tokens and decodes, and contexts only add to it. So its least
value over the box is at a corner: where two of the bounds on prompt tokens, decodes and total tokens meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmsim.core.batch import Work
from llmsim.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmsim.costs.box import Box
    from llmsim.costs.forms import BatchTime


def check_positive(batch_time: BatchTime, box: Box, host_overhead_s: float = 0.0) -> None:
    """Raise CalibrationError where a batch of the box costs nothing; free if no coefficient is negative."""
    if not batch_time.can_fall():
        return
    model = batch_time.cost_model(host_overhead_s)
    for work in _corners(batch_time, box):
        try:
            model.femtoseconds(work)
        except CalibrationError as error:
            raise CalibrationError(f"batch_time is not positive over the box: {error}") from error


def _corners(batch_time: BatchTime, box: Box) -> Iterator[Work]:
    """Batches at the corners of the box and of its strata, with no context: the cheapest that are allowed."""
    totals = _bounds(box, "tokens")
    for part in batch_time.strata:
        if part.max_tokens is not None and part.max_tokens < totals[-1]:
            totals += [part.max_tokens, part.max_tokens + 1]
    prefills, decodes = {0, *_bounds(box, "prefill_tokens")}, {0, *_bounds(box, "decode_tokens")}
    pairs = {(prefill, decode) for prefill in prefills for decode in decodes}
    pairs |= {(total - decode, decode) for total in totals for decode in decodes}
    pairs |= {(prefill, total - prefill) for total in totals for prefill in prefills}
    for prefill, decode in sorted(pairs):
        if prefill < 0 or decode < 0 or not prefill + decode:
            continue
        work = Work(prefill_tokens=prefill, prefill_seqs=min(prefill, 1), decode_tokens=decode)
        if not any(True for _ in box.outside(work)):
            yield work


def _bounds(box: Box, quantity: str) -> list[int]:
    """Least and greatest value, which a model with a negative coefficient must state."""
    item = box.range(quantity)
    if item is None:
        raise CalibrationError(f"box.ranges.{quantity} is missing; a negative coefficient needs this range")
    return [item.low, item.high]
