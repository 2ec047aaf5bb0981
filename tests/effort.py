"""How much the tests try: a part of the examples by default, all of them with LLMSIM_TESTS=all (`make test-all`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

ASKED = os.environ.get("LLMSIM_TESTS", "some")
if ASKED not in ("some", "all"):
    raise ValueError(f"LLMSIM_TESTS must be 'some' or 'all' but is {ASKED!r}")
ALL = ASKED == "all"

Case = TypeVar("Case")


def examples(count: int, some: int | None = None) -> int:
    """How many examples of a property: `count` if all are asked for, else `some`, a fifth unless said otherwise."""
    few = max(count // 5, 5) if some is None else some
    return count if ALL else min(count, few)


def cases(sequence: Sequence[Case], some: int) -> list[Case]:
    """All cases if all are asked for, else that many, spread evenly from the first to the last."""
    count = len(sequence)
    if ALL or some >= count:
        return list(sequence)
    return [sequence[at * (count - 1) // max(some - 1, 1)] for at in range(some)]
