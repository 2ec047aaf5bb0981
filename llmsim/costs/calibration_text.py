"""One calibration in words: what it is, what batches cost, where each number is from (`llmsim calibrations show`)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmsim.core.batch import Work
from llmsim.costs.box import QUANTITIES
from llmsim.costs.calibration_list import aligned
from llmsim.costs.kernel_tables import TABLES
from llmsim.costs.price_steps import JUMP, steps
from llmsim.errors import CalibrationError
from llmsim.units import GIB

if TYPE_CHECKING:
    from llmsim.costs.forms import BatchTime
    from llmsim.costs.kernel_tables import KernelTables, Table
    from llmsim.costs.records import Calibration, ErrorFigures

WIDTH = 100
CONTEXT = 1024

_FORMS = {
    "linear": "a sum of terms",
    "hinge": "a floor that few tokens do not get below, then a slope; contexts on top",
    "tiled": "a price for every tile of tokens that is begun",
    "stratified": "each range of token counts has terms of its own",
    "tabulated": "tables of measured kernels, continued beyond their last points",
}


def calibration_text(calibration: Calibration) -> str:
    """All that the file says, for a terminal: 100 columns, no colour; prices in milliseconds."""
    batch_time = calibration.batch_time
    what = _FORMS.get(batch_time.form, "")
    kv = calibration.kv
    head = (
        f"{calibration.name}: {batch_time.form} batch times, {kv.num_blocks:,} KV blocks of {kv.block_size} tokens, "
        f"sequences of up to {calibration.max_model_len:,} tokens"
    )
    parts = [
        "\n".join(_wrapped(head, "", "  ")),
        _section("Source", _provenance(calibration)),
        _section(f"Batch time: {batch_time.form}{', ' if what else ''}{what}", _batch_time(batch_time)),
        _section("What batches cost, the host's time included", _prices(calibration)),
        _section("One more of something", _steps(calibration)),
        _section("Host's time, an iteration", _host(calibration)),
        _section("KV cache and lengths", _memory(calibration)),
        _section("Measured between", _box(calibration)),
        _section("Errors of predicted against measured batch times", _errors(calibration)),
        _section("Notes", (line for note in calibration.provenance.notes for line in _wrapped(note, "- ", "  "))),
    ]
    return "\n\n".join(part for part in parts if part)


def seconds_text(value: float, unit: str = "s") -> str:
    """A time, or a time per something, in the unit that leaves few zeros: 8.13e-05 s/token is 81.3 us/token."""
    rest = unit.removeprefix("s")
    if not value:
        return f"0 {unit}"
    for scale, prefix in ((1.0, ""), (1e3, "m"), (1e6, "u"), (1e9, "n"), (1e12, "p")):
        if abs(value) * scale >= 1 or prefix == "p":
            break
    return f"{value * scale:.4g} {prefix}s{rest}"


def _section(title: str, lines: Iterator[str]) -> str:
    held = [f"  {line}".rstrip() for line in lines]
    return "\n".join([title, *held]) if held else ""


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    """The text in lines of at most WIDTH columns; a section adds two."""
    return textwrap.wrap(
        text, WIDTH - 2, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )


def _provenance(calibration: Calibration) -> Iterator[str]:
    held = calibration.provenance
    yield from _wrapped(held.source)
    yield from _wrapped(f"Date: {held.date}. Licence: {held.licence}")
    yield from _wrapped(f"Made by: {held.command}", "", "  ")
    setup = calibration.executor
    if setup is not None:
        yield from _wrapped(
            f"Measured by llmsim's own executor: {setup.model}, {setup.backend}, {setup.dtype}, on {setup.device}, "
            f"{setup.threads} thread(s); `llmsim validate` can run it again"
        )


class _Sources:
    """Texts that many numbers share, numbered in the order they are first met."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        """Its number in brackets."""
        if text not in self._texts:
            self._texts.append(text)
        return f"[{self._texts.index(text) + 1}]"

    def lines(self) -> Iterator[str]:
        """The texts, each after its number."""
        for text in self._texts:
            yield from _wrapped(text, f"{self.mark(text)} ", "    ")


def _batch_time(batch_time: BatchTime) -> Iterator[str]:
    sources = _Sources()
    if batch_time.strata:
        for stratum in batch_time.strata:
            limit = "more" if stratum.max_tokens is None else f"up to {stratum.max_tokens:,}"
            yield f"{limit} tokens in the batch: {stratum.batch_time.form}"
            yield from (f"  {line}" for line in _terms(stratum.batch_time, sources))
    else:
        yield from _terms(batch_time, sources)
    yield from sources.lines()


def _terms(part: BatchTime, sources: _Sources) -> Iterator[str]:
    """A plain form: tables, tile and coefficients."""
    if part.kernels is not None:
        yield from _kernels(part.kernels, sources)
    rows = [(item.name, seconds_text(item.value, item.unit), sources.mark(item.source)) for item in part.coefficients]
    if part.tile_tokens is not None:
        rows.append(("tile", f"{part.tile_tokens} tokens", ""))
    if rows:
        yield from aligned(rows, right=(1,))


def _kernels(kernels: KernelTables, sources: _Sources) -> Iterator[str]:
    header = ("table", "points", "by", "from", "to", "least", "most", "")
    yield from aligned([header, *(_table_row(table, sources) for table in kernels.tables)], right=(1, 3, 4, 5, 6))
    if kernels.padding:
        sizes = kernels.padding
        yield from _wrapped(
            f"batches of up to {sizes[-1]:,} tokens are padded to the next of {len(sizes)} sizes from {sizes[0]:,}"
        )
    alone, beside = kernels.decodes_per_wave
    yield from _wrapped(f"the device reads {alone:.4g} decodes at a time, {beside:.4g} beside prompts")


def _table_row(table: Table, sources: _Sources) -> tuple[str, ...]:
    by, unit = TABLES[table.name]
    points, first, last = str(len(table.at)), f"{table.at[0]:,}", f"{table.at[-1]:,}"
    values = list(table.values)
    if table.context:
        by = f"{by} x context"
        points = f"{len(table.at)} x {len(table.context)}"
        first, last = f"{first} x {table.context[0]:,}", f"{last} x {table.context[-1]:,}"
        values = [value for row in table.values for value in row]
    spans = seconds_text(min(values), unit), seconds_text(max(values), unit)
    return (table.name, points, by, first, last, *spans, sources.mark(table.source))


def typical_batches() -> list[tuple[str, Work]]:
    """The batches whose prices are shown, and what they are called."""
    decodes = [
        (f"{count} decode{'s' if count > 1 else ''}, context {CONTEXT:,}", _decodes(count)) for count in (1, 32, 128)
    ]
    prompts = [(f"a prompt of {tokens:,} tokens", _prompt(tokens)) for tokens in (512, 2048)]
    mixed = _prompt(512)
    mixed.decode_tokens, mixed.decode_context, mixed.decode_longest = 32, 32 * CONTEXT, CONTEXT
    return [*decodes, *prompts, ("the 512 beside the 32 decodes", mixed)]


def _decodes(count: int) -> Work:
    return Work(decode_tokens=count, decode_context=count * CONTEXT, decode_longest=CONTEXT)


def _prompt(tokens: int) -> Work:
    return Work(prefill_tokens=tokens, prefill_seqs=1, prefill_attention=tokens * (tokens + 1) // 2)


def _prices(calibration: Calibration) -> Iterator[str]:
    model = calibration.cost_model()
    rows = []
    for name, work in typical_batches():
        try:
            price = f"{model.seconds(work) * 1e3:.2f} ms"
        except CalibrationError:
            price = "no price"
        left = [item.quantity for item, _ in calibration.box.outside(work)]
        rows.append((name, price, f"outside: {', '.join(left)}" if left else ""))
    yield from aligned(rows, right=(1,))
    if any(row[-1] for row in rows):
        yield from _wrapped("outside: sums for which this batch leaves what was measured, so that it is extrapolated")


def _steps(calibration: Calibration) -> Iterator[str]:
    found = steps(calibration.cost_model(), calibration.box)
    kernels = calibration.batch_time.kernels
    for step in found:
        kind = "a fall" if step.change < 0 else "a jump"
        padded = " (to the next size of a CUDA graph)" if kernels is not None and step.size in kernels.padding else ""
        yield f"{kind} of {abs(step.change):.2%}: one more {step.what}, from {step.size:,} on{padded}"
    if not found:
        yield f"never cheaper, and nowhere a jump above {JUMP:.0%}"


def _host(calibration: Calibration) -> Iterator[str]:
    host = calibration.host_overhead
    yield "in the batch times" if host.included_in_batch_times else f"{seconds_text(host.seconds)}, added to each batch"
    yield from _wrapped(host.source)


def _memory(calibration: Calibration) -> Iterator[str]:
    kv, limit = calibration.kv, calibration.limit
    yield (
        f"{kv.num_blocks:,} blocks of {kv.block_size} tokens = {kv.num_blocks * kv.block_size:,} tokens; "
        f"{kv.block_bytes:,} bytes a block, {kv.num_blocks * kv.block_bytes / GIB:.1f} GiB"
    )
    yield from _wrapped(kv.source)
    yield f"sequences of up to {limit.max_model_len:,} tokens, {limit.native_max_model_len:,} by the model itself"
    yield from _wrapped(limit.source)


def _box(calibration: Calibration) -> Iterator[str]:
    box = calibration.box
    rows = [(item.quantity, f"{item.low:,}", f"{item.high:,}") for item in box.ranges]
    if rows:
        yield from aligned(rows, right=(1, 2))
    if box.unbounded:
        named = ", ".join(box.unbounded) if len(box.unbounded) < len(QUANTITIES) else "anything"
        yield from _wrapped(f"no range is known of {named}")
    yield from _wrapped(box.source)


def _errors(calibration: Calibration) -> Iterator[str]:
    errors = calibration.errors
    rows = [_figures("in sample", errors.in_sample), _figures("held out", errors.held_out)]
    yield from aligned(rows, right=(1, 2, 3))
    yield from _wrapped(errors.note)


def _figures(name: str, held: ErrorFigures | None) -> Sequence[str]:
    if held is None:
        return (name, "none known", "", "", "")
    return (
        name,
        f"mean {held.mape_pct:.2f} %",
        f"p95 {held.p95_pct:.2f} %",
        f"worst {held.max_pct:.2f} %",
        f"of {held.cases:,} batches",
    )
