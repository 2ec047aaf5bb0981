"""Which rows of a file are still in, how many went out for which reason, and which fault is named.

A file that is read in blocks has one `Ledger` for all of them: what stops the reading is said when the last block has
been seen, so that the message names the same row and counts the same rows as if the file had been read whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llmsim.errors import TraceError
from llmsim.traces.parsing import Fault, Mask
from llmsim.traces.rawtable import RawTable


@dataclass(slots=True)
class Tally:
    """Rows of one fault: how many, whether they were left out, and the first of them (line of the file, cell)."""

    fault: Fault
    line: int
    value: object
    dropped: bool
    count: int = 0


@dataclass(slots=True)
class Ledger:
    """Faults of a file by the step of checking that found them; an earlier step has the word before a later one."""

    source: str
    tallies: dict[tuple[int, int], Tally] = field(default_factory=dict)

    @property
    def dropped(self) -> dict[str, int]:
        """Rows left out per reason, in the order of the checks."""
        counts: dict[str, int] = {}
        for key in sorted(self.tallies):
            tally = self.tallies[key]
            if tally.dropped:
                counts[tally.fault.reason] = counts.get(tally.fault.reason, 0) + tally.count
        return counts

    def add(self, key: tuple[int, int], fault: Fault, hit: Mask, raw: RawTable, drop: bool) -> None:
        """Count the rows `hit` (bool, shape (rows,)) of one block under the fault `key` = (step, fault of the step)."""
        count = int(hit.sum())
        if not count:
            return
        if key not in self.tallies:
            row = int(np.argmax(hit))
            self.tallies[key] = Tally(fault, int(raw.line[row]), raw.cells[fault.column].iloc[row], drop)
        self.tallies[key].count += count

    def raise_first(self) -> None:
        """TraceError for the faulty row nearest to the top of the file, if a step found one that may not be dropped."""
        faulty = [key for key, tally in self.tallies.items() if not tally.dropped]
        if not faulty:
            return
        step = min(faulty)[0]
        first = self.tallies[min((key for key in faulty if key[0] == step), key=lambda k: (self.tallies[k].line, k))]
        fault = first.fault
        complaint = fault.complaint
        if fault.reason == "missing_value" and str(first.value).strip():  # n/a, null, NaN
            complaint = complaint.replace("is empty", "stands for a missing value", 1)
        more = f" ({first.count} such rows)" if first.count > 1 else ""
        option = "on_long='drop'" if fault.reason == "prompt_too_long" else "on_bad='drop'"
        flag = option.replace("_", "-").replace("='drop'", " drop")
        raise TraceError(
            f"{self.source}: row {first.line}, column {fault.column!r}: {first.value!r} "
            f"{complaint}{more}; {fault.remedy}, or leave such rows out with {option} (--{flag})"
        )

    def nothing_left(self) -> TraceError:
        """The error for a file of which no row is left."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        return TraceError(f"{self.source}: no usable rows are left ({reasons}); give another file or limit")


@dataclass
class Rows:
    """The rows of a file, or of one block of it: those in `keep` are still in.

    With a `ledger` this is a block, and errors wait for the ledger's file to end; without one they are raised at once.
    """

    raw: RawTable
    drop: bool
    ledger: Ledger | None = None
    keep: Mask = field(init=False)

    def __post_init__(self) -> None:
        self.keep = np.ones(len(self.raw.cells), dtype=np.bool_)
        self._step = 0
        self._ledger = Ledger(self.raw.source) if self.ledger is None else self.ledger

    @property
    def dropped(self) -> dict[str, int]:
        """Rows left out per reason."""
        return self._ledger.dropped

    def settle(self, faults: list[Fault], drop: bool | None = None) -> None:
        """Leave out faulty rows if asked (each counted under its first fault), else raise for the first.

        Blocks of one file must settle the same faults in the same order.
        """
        drop = self.drop if drop is None else drop
        for number, fault in enumerate(faults):
            hit = fault.rows & self.keep
            self._ledger.add((self._step, number), fault, hit, self.raw, drop)
            if drop:
                self.keep &= ~hit
        self._step += 1
        if self.ledger is None:
            self._ledger.raise_first()
            if not self.keep.any():
                raise self._ledger.nothing_left()
