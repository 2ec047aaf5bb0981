"""How the requests of a stream come about, block by block: rows of a trace file, draws, or both.

Every pass begins anew from the seed and draws from the same random streams as `build_workload`, with their state
carried from block to block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmsim.core.request import NO_SLO, SloClass
from llmsim.traces.arrivals import ArrivalProcess, seconds_to_ns
from llmsim.traces.classes import row_classes, with_row_models
from llmsim.traces.contents import RowContents
from llmsim.traces.file_times import FileTimes, file_times
from llmsim.traces.length_draws import DrawnLengths
from llmsim.traces.profile import ProfileDraws
from llmsim.traces.selection import check_rows, drawer
from llmsim.traces.served_models import Limits, check_models, shared_limit
from llmsim.traces.spec import WorkloadSpec
from llmsim.traces.twins import Twin
from llmsim.traces.workload import (
    Ints,
    Streams,
    Workload,
    check_arrivals,
    class_draws,
    scaled,
    time_factor,
)
from llmsim.traces.workload_facts import LengthTotals, RowTotals, Totals, describe, trace_facts

if TYPE_CHECKING:
    import pandas as pd

    from llmsim.traces.tracefile import FileFacts, TraceFile


class Plan:
    """The requests of a specification that is drawn, of a `twin`, or of the rows of a `trace` in their order.

    `survey` comes first; it fills `slo_classes` and what `blocks` needs to know of the whole.
    """

    def __init__(
        self,
        spec: WorkloadSpec,
        seed: int,
        max_model_len: Limits,
        block: int,
        twin: Twin | None = None,
        trace: TraceFile | None = None,
    ) -> None:
        self.spec = spec
        self.slo_classes: tuple[SloClass, ...] = tuple(c.slo() for c in spec.classes) or (NO_SLO,)
        self._asked = self.slo_classes
        self._found: tuple[SloClass, ...] | None = None
        self._row_models = False
        """Whether classes that are drawn take the model of their row."""
        self._seed = seed
        self._limits = max_model_len
        self._limit = shared_limit(max_model_len, spec.on_long)
        self._block = block
        self._twin = twin
        self._trace = trace
        self._row_lengths = trace is not None and spec.lengths.kind == "trace"
        self._row_times = trace is not None and spec.arrivals.kind == "trace"
        self._count = 0
        self._factor = 1.0
        self._times: FileTimes | None = None

    def survey(self) -> Totals:
        """One pass over everything: what is known of the whole, or the error of what cannot be used."""
        rows = self._rows_survey()
        self._count = self.spec.num_requests or (self._twin.rows if self._twin is not None else self._file_rows)
        streams = Streams.of(self._seed)
        if self._row_lengths:
            assert self._trace is not None
            check_rows(self._count, self._file_rows, self._trace.source)
            lengths = LengthTotals(rows.prompt_tokens, rows.output_tokens)
            lengths.clipped = self._facts.clipped if self._facts else 0
        else:
            lengths = self._lengths_survey(streams)
        first, last = self._arrivals_survey(rows, streams)
        self._models_survey(rows)
        return Totals(
            num_requests=self._count,
            first_arrival_ns=first,
            last_arrival_ns=last,
            prompt_tokens=lengths.prompt_tokens,
            output_tokens=lengths.output_tokens,
            dropped={**(self._facts.dropped if self._facts else {}), **lengths.dropped},
            clipped=lengths.clipped,
        )

    def describe(self, total: Totals) -> dict[str, Any]:
        """What the manifest says about the workload, as `build_workload` does."""
        trace, twin, facts = self._trace, self._twin, self._facts
        said = None
        if trace is not None and facts is not None:
            said = trace_facts(trace.name, facts.format, facts.rows, facts.sha256, facts.moved, self._times)
        elif twin is not None:
            said = trace_facts(twin.name, "twin", twin.rows, twin.sha256)
        return describe(self.spec, self._seed, self._limits, said, total, self._times)

    def blocks(self) -> Iterator[Workload]:
        """The requests from the first on."""
        streams = Streams.of(self._seed)
        lengths = None if self._row_lengths else self._lengths(streams)
        arrivals = None if self._row_times else self._arrivals(streams)
        classes = class_draws(self.spec, np.random.default_rng(streams.classes)) if self.spec.classes else None
        known: dict[tuple[Any, ...], int] = {}
        asked = self.slo_classes
        contents = self._contents()
        for n, table in self._steps():
            prompt, output = lengths.take(n) if lengths else _columns(table, "prompt_tokens", "output_tokens")
            times = arrivals(n) if arrivals else _columns(table, "arrival_ns")[0]
            if classes is not None:
                slo_index = classes(n)
                if self._row_models and table is not None:
                    slo_index, found = with_row_models(slo_index, self._asked, table, np.arange(n), known)
                    asked = self._found or found
            elif self._row_lengths and table is not None:
                slo_index, _ = row_classes(table, np.arange(n), known)
            else:
                slo_index = np.zeros(n, dtype=np.int64)
            yield Workload(
                arrival_ns=self._to_ns(times),
                prompt_tokens=prompt,
                output_tokens=output,
                slo_index=slo_index,
                slo_classes=asked,
                max_concurrency=self.spec.arrivals.max_concurrency,
                contents=None if contents is None or table is None else contents.of(table, range(n), prompt.tolist()),
            )

    def _contents(self) -> RowContents | None:
        """What says of rows what their tokens are, from the first on."""
        unit = self.spec.hash_block_size
        if unit is None or self._trace is None:
            return None
        return RowContents(unit, self._trace.source, cut=self.spec.on_long == "clip")

    @property
    def _facts(self) -> FileFacts | None:
        return None if self._trace is None else self._trace.facts

    @property
    def _file_rows(self) -> int:
        return 0 if self._facts is None else self._facts.rows

    def _sizes(self) -> Iterator[int]:
        """Sizes of blocks that are drawn."""
        for start in range(0, self._count, self._block):
            yield min(self._block, self._count - start)

    def _steps(self) -> Iterator[tuple[int, pd.DataFrame | None]]:
        """Size of each block, and its rows of the trace where these are needed."""
        if self._trace is None or not (self._row_lengths or self._row_times):
            yield from ((n, None) for n in self._sizes())
            return
        left = self._count
        for table in self._trace.tables(self.spec.hash_block_size is not None):
            part = table.iloc[:left]
            left -= len(part)
            if len(part):
                yield len(part), part
            # The rest of the file has been seen; only of a whole pass is it known whether the file is the same.
            if not left and self._count < self._file_rows:
                return

    def _rows_survey(self) -> RowTotals:
        """A pass over all rows of the trace; those that become requests are summed."""
        rows = RowTotals()
        if self._trace is None:
            return rows
        for _ in range(2):
            rows = RowTotals()
            for table in self._trace.tables():
                rows.add(table if self.spec.num_requests is None else table.iloc[: self.spec.num_requests - rows.taken])
            if not self._trace.must_repeat:
                break
        if self._row_lengths and not self.spec.classes:
            self.slo_classes = rows.classes
        return rows

    def _models_survey(self, rows: RowTotals) -> None:
        """Another pass where drawn classes meet models of rows; and every model that is asked for must be served."""
        served = self._limits if isinstance(self._limits, Mapping) else None
        self._row_models = bool(self.spec.classes) and self._row_lengths and rows.models
        asked = any(c.model for c in self.slo_classes)
        if not self._row_models and (served is None or (len(served) == 1 and not asked)):
            return
        counts: Counter[int] = Counter()
        classes = self.slo_classes
        for part in self.blocks():
            classes = part.slo_classes
            counts.update(part.slo_index.tolist())
        self._found = self.slo_classes = classes
        check_models(self._limits, classes, [counts[at] for at in range(len(classes))])

    def _lengths_survey(self, streams: Streams) -> LengthTotals:
        """A pass over all drawn lengths."""
        lengths = self._lengths(streams)
        total = LengthTotals()
        for n in self._sizes():
            prompt, output = lengths.take(n)
            total.prompt_tokens += int(prompt.sum())
            total.output_tokens += int(output.sum())
        lengths.finish()
        total.dropped, total.clipped = lengths.dropped, lengths.clipped
        return total

    def _arrivals_survey(self, rows: RowTotals, streams: Streams) -> tuple[int, int]:
        """First and last arrival in ns; the factor on the trace's times is found on the way."""
        ends: NDArray[Any] = np.array([rows.first_ns, rows.last_ns], dtype=np.int64)
        if self.spec.arrivals.kind == "trace":
            if self._trace is not None:
                timed = self._facts is not None and self._facts.has_arrivals
                check_arrivals(self.spec, timed, self._count, self._file_rows, self._trace.source)
                assert self._facts is not None
                about = self._facts.clock, rows.first_ns, rows.last_ns, self._count, self._trace.source
                self._times = file_times(self.spec, *about)
            elif self._twin is not None:
                check_arrivals(self.spec, self._twin.has_arrivals)
        if not self._row_times:
            arrivals = self._arrivals(streams)
            parts = [part[[0, -1]] for part in (arrivals(n) for n in self._sizes())]
            ends = np.concatenate(parts)[[0, -1]]
        if self.spec.arrivals.kind == "trace":
            self._factor = time_factor(self.spec, int(ends[0]), int(ends[1]), self._count)
        first, last = self._to_ns(ends).tolist()
        return first, last

    def _lengths(self, streams: Streams) -> DrawnLengths:
        """Lengths that are drawn, from the first on."""
        draw = drawer(self.spec, self._twin, streams.lengths)
        return DrawnLengths(draw, self._count, self._limit, self.spec.on_long, self._block)

    def _arrivals(self, streams: Streams) -> Callable[[int], NDArray[Any]]:
        """The next n arrivals that are drawn: ns of a twin's own, else seconds."""
        rng = np.random.default_rng(streams.arrivals)
        if self.spec.arrivals.kind == "trace":
            assert self._twin is not None
            assert self._twin.arrivals is not None
            return ProfileDraws(self._twin.arrivals, rng).next
        return ArrivalProcess(self.spec.arrivals, rng).next

    def _to_ns(self, times: NDArray[Any]) -> Ints:
        """Arrivals as requests have them, of times as the trace or the process has them."""
        if self.spec.arrivals.kind != "trace":
            return seconds_to_ns(times)
        return scaled(times if self._times is None else times - self._times.shift_ns, self._factor)


def _columns(table: pd.DataFrame | None, *names: str) -> list[Ints]:
    """Columns of a block of the trace, as arrays of their own."""
    assert table is not None
    return [table[name].to_numpy().copy() for name in names]
