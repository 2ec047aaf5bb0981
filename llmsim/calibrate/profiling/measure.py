"""Timing the cases of a plan on a ModelRunner: warm-up, interleaved repeats, every sample on disk as it is taken."""

from __future__ import annotations

import csv
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmsim.errors import CalibrationError
from llmsim.executors.step import Row

if TYPE_CHECKING:
    from llmsim.calibrate.profiling.cases import Case
    from llmsim.executors.device import StepResult
    from llmsim.executors.runner import ModelRunner

COLUMNS = ("case", "repeat", "seconds", "step_seconds")
Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""


class Samples:
    """measurements.csv of one campaign: appended to sample by sample, so that an interruption loses nothing.

    A last line that was cut off while it was written is dropped, and `repaired` says so. Raises CalibrationError if
    the file is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repaired = False
        self.done: Counter[str] = Counter()
        """Repeats that are on disk, by case."""
        if path.exists():
            self._read()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.reader(whole.splitlines()))
        if not rows or tuple(rows[0]) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
            raise CalibrationError(f"{self.path}: is no file of measurements; its columns must be {','.join(COLUMNS)}")
        if whole != text:
            self.repaired = True
            self.path.write_text(whole, encoding="utf-8")
        self.done.update(row[0] for row in rows[1:])

    def add(self, case: str, result: StepResult) -> None:
        """Append one sample of `case`."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            row = (case, self.done[case], f"{result.forward_ns / 1e9:.9f}", f"{result.whole_ns / 1e9:.9f}")
            csv.writer(file, lineterminator="\n").writerow(row)
        self.done[case] += 1


class Bench:
    """Runs cases: random tokens, and pages of the KV cache drawn anew for every run, as a server's are scattered.

    Only pages from `first_page` on are touched; the ones before belong to somebody else.
    """

    def __init__(self, runner: ModelRunner, seed: int = 0, first_page: int = 0) -> None:
        self.runner = runner
        self.first_page = first_page
        self._random = np.random.default_rng(seed)
        if not first_page:
            runner.fill_kv()

    def run(self, case: Case) -> StepResult:
        """One timed iteration of the case, right after one of the same batch that is not timed.

        In a server an iteration follows another of nearly the same sequences, so what caches keep of weights and KV is
        there; behind a random other case it would not be. Decodes lead, as in a live batch.
        """
        rows = self.rows(case)
        self.runner.step(rows)
        return self.runner.step(rows)

    def rows(self, case: Case) -> list[Row]:
        """The sequences of the case on pages of their own; CalibrationError if the cache has too few."""
        size = self.runner.spec.page_size
        needed = case.blocks(size)
        given = self.runner.num_pages - self.first_page
        if needed > given:
            raise CalibrationError(
                f"case {case} needs {needed} KV pages of {size} tokens but the device was given {given}; leave the "
                "case out or give more memory"
            )
        pages = (self.first_page + self._random.permutation(given)[:needed]).astype(np.int32)
        rows, at = [], 0
        for sequence in sorted(case.sequences, key=lambda s: not s.decode):
            held = -(-sequence.keys // size)
            tokens = self._random.integers(self.runner.config.vocabulary, size=sequence.queries, dtype=np.int64)
            rows.append(Row(tokens, sequence.past, pages[at : at + held]))
            at += held
        return rows


def probe(bench: Bench, cases: Sequence[Case], progress: Progress | None = None) -> dict[str, float]:
    """Run every case once, not for the fit: warms up kernels and clocks; seconds that each takes, by its name."""
    seconds = {}
    for done, case in enumerate(cases, start=1):
        began = time.perf_counter()
        bench.run(case)
        seconds[case.name] = time.perf_counter() - began
        if progress is not None:
            progress(done, len(cases))
    return seconds


def measure(
    bench: Bench,
    cases: Sequence[Case],
    samples: Samples,
    *,
    repeats: int,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> int:
    """Take the samples that are missing of `repeats` a case, round by round; returns how many were taken.

    Interleaved, each round in an order of its own, so that a slow minute of the machine touches all cases alike.
    After `deadline` (time.monotonic) no further round begins.
    """
    order = np.random.default_rng(len(cases))
    total, taken = repeats * len(cases), 0
    have = sum(min(samples.done[str(case)], repeats) for case in cases)
    with no_collection():
        for repeat in range(repeats):
            if deadline is not None and time.monotonic() > deadline:
                break
            for at in order.permutation(len(cases)).tolist():
                case = cases[at]
                if samples.done[str(case)] > repeat:
                    continue
                samples.add(str(case), bench.run(case))
                taken += 1
                if progress is not None:
                    progress(have + taken, total)
    return taken


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection inside a timed iteration."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
