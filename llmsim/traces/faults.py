"""Which rows of a file are still in, how many went out for which reason, and which fault is named.

A file that is read in blocks has one `Ledger` for all of them: what stops the reading is said when the last block has
been seen, so that the message counts the rows of the whole file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llmsim.errors import TraceError
from llmsim.traces.parsing import Fault, Mask
from llmsim.traces.records import Cells, Records


@dataclass(slots=True)
class Tally:
    """Rows of one fault: how many, whether they were left out, and the first of them (from 0) with its cell."""

    fault: Fault
    row: int
    value: str
    dropped: bool
    count: int = 0


@dataclass(slots=True)
class Ledger:
    """Faults of a file by the step of checking that found them; an earlier step has the word before a later one."""

    records: Records
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

    def add(self, key: tuple[int, int], fault: Fault, hit: Mask, cells: Cells, drop: bool) -> None:
        """Count the rows `hit` (bool, shape (rows,)) of one block under the fault `key` = (step, fault of the step)."""
        count = int(hit.sum())
        if not count:
            return
        if key not in self.tallies:
            row = int(np.argmax(hit))
            self.tallies[key] = Tally(fault, cells.first + row, cells.columns[fault.column][row].as_py(), drop)
        self.tallies[key].count += count

    def raise_first(self) -> None:
        """TraceError for the faulty row nearest to the top of the file, if a step found one that may not be dropped."""
        faulty = [key for key, tally in self.tallies.items() if not tally.dropped]
        if not faulty:
            return
        step = min(faulty)[0]
        first = self.tallies[min((key for key in faulty if key[0] == step), key=lambda k: (self.tallies[k].row, k))]
        fault = first.fault
        complaint = fault.complaint
        if fault.reason == "missing_value" and first.value.strip():  # n/a, null, NaN
            complaint = complaint.replace("is empty", "stands for a missing value", 1)
        more = f" ({first.count} such rows)" if first.count > 1 else ""
        option = "on_long='drop'" if fault.reason == "prompt_too_long" else "on_bad='drop'"
        flag = option.replace("_", "-").replace("='drop'", " drop")
        raise TraceError(
            f"{self.records.source}: row {self.records.line(first.row)}, column {fault.column!r}: {first.value!r} "
            f"{complaint}{more}; {fault.remedy}, or leave such rows out with {option} (--{flag})"
        )

    def nothing_left(self) -> TraceError:
        """The error for a file of which no row is left."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        return TraceError(f"{self.records.source}: no usable rows are left ({reasons}); give another file or limit")


class Rows:
    """The rows of one block of a file: those in `keep` (bool, shape (rows,)) are still in.

    Errors wait for the ledger's file to end. Blocks of one file must settle the same faults in the same order.
    """

    def __init__(self, cells: Cells, drop: bool, ledger: Ledger) -> None:
        self.cells = cells
        self.keep: Mask = np.ones(len(cells), dtype=np.bool_)
        self._drop = drop
        self._ledger = ledger
        self._step = 0

    def settle(self, faults: list[Fault], drop: bool | None = None) -> None:
        """Note faulty rows under their first fault, and leave them out if asked."""
        drop = self._drop if drop is None else drop
        for number, fault in enumerate(faults):
            hit = fault.rows & self.keep
            self._ledger.add((self._step, number), fault, hit, self.cells, drop)
            if drop:
                self.keep &= ~hit
        self._step += 1
