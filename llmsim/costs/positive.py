"""Whether a model prices every batch of its box above zero, with a finite number.

Without a negative coefficient the smallest and the largest batches say it. With one, the price within a stratum is
linear in prompt tokens and decodes, and contexts only add to it. So its least value over the box is at a corner: where
two of the bounds on prompt tokens, decodes and total tokens meet.
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
    """Raise CalibrationError where a batch of the box costs nothing, or more than can be counted."""
    model = batch_time.cost_model(host_overhead_s)
    for work in _corners(batch_time, box) if batch_time.can_fall() else _extremes(box):
        try:
            model.femtoseconds(work)
        except CalibrationError as error:
            raise CalibrationError(f"batch_time is not positive over the box: {error}") from error
        except OverflowError as error:
            raise CalibrationError(f"batch_time is not finite over the box, at {work!r}; check its values") from error


def _extremes(box: Box) -> Iterator[Work]:
    """One prompt and one batch of decodes, as small and as large as the box says; of one token where it is silent."""
    held = {item.quantity: item for item in box.ranges}
    for tokens in sorted({1, *((held["prefill_tokens"].high,) if "prefill_tokens" in held else ())} - {0}):
        yield Work(tokens, 1, 0, tokens * (tokens + 1) // 2)
    for decodes in sorted({1, *((held["decode_tokens"].high,) if "decode_tokens" in held else ())} - {0}):
        yield Work(decode_tokens=decodes, decode_context=decodes)


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
