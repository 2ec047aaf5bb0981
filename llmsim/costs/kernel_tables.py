"""The tables of the `tabulated` form in a calibration file: times of kernels, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmsim.costs.curves import Curve, Surface
from llmsim.errors import CalibrationError, did_you_mean

if TYPE_CHECKING:
    from llmsim.costs.fields import Section

TABLES = {
    "tokens": ("tokens", "s"),
    "sequences": ("sequences", "s"),
    "prefill_base": ("prompt tokens", "s"),
    "prefill_per_key": ("prompt tokens", "s/token"),
    "decode": ("decodes", "s"),
    "decode_mixed": ("decodes", "s"),
    "decode_tail": ("decodes", "s/token"),
    "decode_mixed_tail": ("decodes", "s/token"),
}
"""Each table's argument (`decode` and `decode_mixed`: and the mean context in tokens) and the unit of its values."""

SURFACES = ("decode", "decode_mixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Values (of the whole model, in the unit of TABLES) at points; `context` and rows of values for a surface."""

    name: str
    at: tuple[int, ...]
    values: tuple[Any, ...]
    source: str
    context: tuple[int, ...] = ()

    def built(self) -> Curve | Surface:
        """The table to be read while a run goes on."""
        if self.name in SURFACES:
            return Surface(self.at, self.context, self.values)
        return Curve(self.at, self.values)

    def to_json(self) -> dict[str, Any]:
        """The object that `read_kernel_tables` reads."""
        context = {"context": list(self.context)} if self.context else {}
        values = [list(row) for row in self.values] if self.context else list(self.values)
        return {"unit": TABLES[self.name][1], "source": self.source, "at": list(self.at)} | context | {"values": values}


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTables:
    """What the tabulated form reads besides its coefficients.

    `padding`: sizes in tokens to which small batches are padded, because CUDA graphs were captured for them; empty
    where the engine pads nothing. `decodes_per_wave`, alone and beside prompts: how many decodes the device reads at
    a time.
    """

    tables: tuple[Table, ...]
    padding: tuple[int, ...] = ()
    decodes_per_wave: tuple[float, float] = (1.0, 1.0)

    def options(self) -> dict[str, Any]:
        """Arguments of `Tabulated`."""
        tables = {table.name: table.built() for table in self.tables}
        return {"tables": tables, "padding": self.padding, "waves": self.decodes_per_wave}

    def table(self, name: str) -> Table | None:
        """The table of that name, if there is one."""
        return next((table for table in self.tables if table.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Part of the `batch_time` object."""
        return {
            "padding": list(self.padding),
            "decodes_per_wave": list(self.decodes_per_wave),
            "tables": {table.name: table.to_json() for table in self.tables},
        }


def read_kernel_tables(section: Section) -> KernelTables:
    """`padding`, `decodes_per_wave` and `tables` of a `batch_time` object, checked."""
    padding, waves = section.numbers("padding"), section.numbers("decodes_per_wave")
    if any(not isinstance(size, int) or size < 1 for size in padding) or sorted(set(padding)) != list(padding):
        section.fail("padding", "must be whole numbers above 0 that rise")
    if len(waves) != 2 or min(waves) <= 0:
        section.fail("decodes_per_wave", "must be two numbers above 0: decodes alone, and beside prompts")
    held = section.section("tables")
    for name in held.names():
        if name not in TABLES:
            held.fail(name, f"is no table of the tabulated form.{did_you_mean(name, TABLES)}")
    if not held.has("tokens"):
        held.fail("tokens", "is missing; the tabulated form needs it")
    tables = tuple(_read_table(held, name) for name in held.names())
    return KernelTables(tables=tables, padding=padding, decodes_per_wave=(float(waves[0]), float(waves[1])))


def _read_table(held: Section, name: str) -> Table:
    section = held.section(name)
    unit = section.text("unit")
    if unit != TABLES[name][1]:
        section.fail("unit", f"must be {TABLES[name][1]!r} but got {unit!r}")
    table = Table(
        name=name,
        at=section.numbers("at"),
        values=section.numbers("values"),
        source=section.text("source"),
        context=section.numbers("context") if name in SURFACES else (),
    )
    section.close()
    try:
        table.built()
    except (CalibrationError, TypeError) as error:
        section.fail("values", f"cannot be used: {error}")
    return table
