"""The batch-time part of a calibration file: a form, its coefficients, and the cost model they make.

A form is a row of `FORMS`: its class and the names it takes. Units are fixed per coefficient, so that a
number in microseconds is an error and not a run that is a million times too slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmsim.costs.kernel_tables import KernelTables, read_kernel_tables
from llmsim.costs.linear import Hinge, Linear
from llmsim.costs.stratified import Stratified, Tiled
from llmsim.costs.tabulated import Tabulated
from llmsim.errors import CalibrationError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmsim.costs.base import CostModel
    from llmsim.costs.fields import Section

UNITS = {
    "floor": "s",
    "constant": "s",
    "per_token": "s/token",
    "per_prefill_token": "s/token",
    "per_decode_token": "s/token",
    "per_sequence": "s/sequence",
    "per_tile": "s/tile",
    "per_decode_context": "s/token",
    "per_prefill_attention": "s/pair",
    "per_prefill_context": "s/token",
    "mixed_pair": "s/token/sequence",
    "graph_gaps": "s",
    "launch_gaps": "s",
}
"""The unit of every coefficient; a pair is one query token against one key token."""

_CONTEXTS = ("per_decode_context", "per_prefill_attention", "per_prefill_context")

FORMS: dict[str, tuple[Callable[..., CostModel], tuple[str, ...]]] = {
    "linear": (
        Linear,
        ("constant", "per_token", "per_prefill_token", "per_decode_token", "per_sequence", *_CONTEXTS),
    ),
    "hinge": (Hinge, ("floor", "constant", "per_token", "per_sequence", *_CONTEXTS)),
    "tiled": (Tiled, ("constant", "per_tile", "per_token", *_CONTEXTS)),
    "tabulated": (Tabulated, ("constant", "mixed_pair", "graph_gaps", "launch_gaps")),
}
"""Plain forms: class and the coefficients it takes. `stratified` nests them."""

REQUIRED = {"hinge": ("floor",), "tiled": ("per_tile",)}


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One fitted or published number, where it comes from, and its unit."""

    name: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """One regime: token counts up to `max_tokens`, inclusive; None for the last."""

    max_tokens: int | None
    batch_time: BatchTime


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTime:
    """A form with its coefficients; `tile_tokens` for the tiled form, `strata` for the stratified one, `kernels` for
    the tabulated one."""

    form: str
    coefficients: tuple[Coefficient, ...] = ()
    tile_tokens: int | None = None
    strata: tuple[Stratum, ...] = ()
    kernels: KernelTables | None = None

    def cost_model(self, host_overhead_s: float = 0.0) -> CostModel:
        """The cost model; `host_overhead_s` is paid once per iteration, above and below any floor."""
        if self.form == "stratified":
            models = [part.batch_time.cost_model(host_overhead_s) for part in self.strata]
            limits = [part.max_tokens for part in self.strata]
            return Stratified(list(zip(limits, models, strict=True)))
        options: dict[str, Any] = {item.name: item.value for item in self.coefficients}
        options["constant"] = options.get("constant", 0.0) + host_overhead_s
        if "floor" in options:
            options["floor"] += host_overhead_s
        if self.tile_tokens is not None:
            options["tile_tokens"] = self.tile_tokens
        if self.kernels is not None:
            return Tabulated(**self.kernels.options(), **options)
        return FORMS[self.form][0](**options)

    def value(self, name: str) -> float:
        """Coefficient `name`, in the unit of `UNITS`; 0 where the form leaves it out."""
        return next((item.value for item in self.coefficients if item.name == name), 0.0)

    def can_fall(self) -> bool:
        """Whether a coefficient is negative, so that more tokens may cost less."""
        parts = (part.batch_time.can_fall() for part in self.strata)
        return any(item.value < 0 for item in self.coefficients) or any(parts)

    def to_json(self) -> dict[str, Any]:
        """The object that `read_batch_time` reads."""
        held: dict[str, Any] = {"form": self.form}
        if self.form == "stratified":
            held["strata"] = [
                {"max_tokens": part.max_tokens, **part.batch_time.to_json()} for part in self.strata
            ]
            return held
        if self.tile_tokens is not None:
            held["tile_tokens"] = self.tile_tokens
        if self.kernels is not None:
            held |= self.kernels.to_json()
        held["coefficients"] = {
            item.name: {"value": item.value, "unit": item.unit, "source": item.source}
            for item in self.coefficients
        }
        return held


def read_batch_time(section: Section) -> BatchTime:
    """The `batch_time` object of a calibration file, checked."""
    form = section.text("form")
    if form == "stratified":
        strata = tuple(_read_stratum(part) for part in section.sections("strata"))
        section.close()
        return BatchTime(form=form, strata=strata)
    plain = _read_plain(section, form)
    section.close()
    return plain


def _read_stratum(section: Section) -> Stratum:
    limit = section.whole("max_tokens", minimum=1) if section.has("max_tokens") else None
    form = section.text("form")
    if form == "stratified":
        section.fail("form", "must be a plain form inside strata but got 'stratified'")
    plain = _read_plain(section, form)
    section.close()
    return Stratum(max_tokens=limit, batch_time=plain)


def _read_plain(section: Section, form: str) -> BatchTime:
    if form not in FORMS:
        section.fail("form", f"is {form!r}, which is no form.{did_you_mean(form, [*FORMS, 'stratified'])}")
    allowed = FORMS[form][1]
    held = section.section("coefficients")
    for name in held.names():
        if name not in allowed:
            held.fail(name, f"is no coefficient of form {form!r}.{did_you_mean(name, allowed)}")
    for name in REQUIRED.get(form, ()):
        if not held.has(name):
            held.fail(name, f"is missing; form {form!r} needs it")
    coefficients = tuple(_read_coefficient(held, name) for name in held.names())
    tile = section.whole("tile_tokens", minimum=1) if form == "tiled" else None
    kernels = read_kernel_tables(section) if form == "tabulated" else None
    batch_time = BatchTime(form=form, coefficients=coefficients, tile_tokens=tile, kernels=kernels)
    try:
        batch_time.cost_model()
    except CalibrationError as error:
        section.fail("coefficients", f"cannot be used: {error}")
    return batch_time


def _read_coefficient(held: Section, name: str) -> Coefficient:
    section = held.section(name)
    value, unit, source = section.number("value"), section.text("unit"), section.text("source")
    if unit != UNITS[name]:
        section.fail("unit", f"must be {UNITS[name]!r} but got {unit!r}")
    section.close()
    return Coefficient(name, value, unit, source)
