"""Reading a calibration file: strict, one function an object of the format."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from llmsim.costs.box import QUANTITIES, Box, Range
from llmsim.costs.fields import Section, read_json_object
from llmsim.costs.forms import read_batch_time
from llmsim.costs.records import (
    SCHEMA_VERSION,
    Calibration,
    EngineTerms,
    ErrorFigures,
    ExecutorSetup,
    FitErrors,
    HostOverhead,
    KvMemory,
    LengthLimit,
    Provenance,
)
from llmsim.errors import CalibrationError


def read_calibration(path: str | Path) -> Calibration:
    """The calibration in the file at `path`; CalibrationError names file, key, value and what is allowed."""
    path = Path(path)
    top = read_json_object(path)
    version = top.whole("schema_version", minimum=1)
    if version != SCHEMA_VERSION:
        top.fail("schema_version", f"is {version}, but this llmsim reads version {SCHEMA_VERSION}")
    parts: dict[str, Any] = {
        "device": top.text("device"),
        "model": top.text("model"),
        "batch_time": read_batch_time(top.section("batch_time")),
        "box": _box(top.section("box")),
        "errors": _errors(top.section("errors")),
        "host_overhead": _host_overhead(top.section("host_overhead")),
        "kv": _kv(top.section("kv")),
        "limit": _limit(top.section("limit")),
        "executor": _executor(top.section("executor")) if top.has("executor") else None,
        "engine": _engine(top.section("engine")) if top.has("engine") else None,
        "provenance": _provenance(top.section("provenance")),
    }
    top.close()
    try:
        return Calibration(**parts)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error


def _box(section: Section) -> Box:
    held = section.section("ranges")
    ranges = []
    for name in held.names():
        bounds = held.section(name)
        if name not in QUANTITIES:
            bounds.fail("", f"cannot be bounded; allowed: {', '.join(QUANTITIES)}")
        low, high = bounds.whole("min"), bounds.whole("max")
        if low > high:
            bounds.fail("max", f"must be at least min, {low}, but got {high}")
        bounds.close()
        ranges.append(Range(name, low, high))
    box = Box(ranges=tuple(ranges), source=section.text("source"))
    section.close()
    return box


def _errors(section: Section) -> FitErrors:
    in_sample, held_out = (
        _figures(section.section(name)) if section.has(name) else None for name in ("in_sample", "held_out")
    )
    errors = FitErrors(in_sample=in_sample, held_out=held_out, note=section.text("note"))
    section.close()
    return errors


def _figures(section: Section) -> ErrorFigures:
    figures = ErrorFigures(
        cases=section.whole("cases", minimum=1),
        mape_pct=section.number("mape_pct", minimum=0),
        p95_pct=section.number("p95_pct", minimum=0),
        max_pct=section.number("max_pct", minimum=0),
    )
    section.close()
    return figures


def _host_overhead(section: Section) -> HostOverhead:
    host = HostOverhead(
        seconds=section.number("seconds", minimum=0),
        included_in_batch_times=section.flag("included_in_batch_times"),
        source=section.text("source"),
    )
    section.close()
    return host


def _kv(section: Section) -> KvMemory:
    names = ("block_size", "num_blocks", "block_bytes")
    sizes = {name: section.whole(name, minimum=1) for name in names}
    kv = KvMemory(**sizes, source=section.text("source"))
    section.close()
    return kv


def _limit(section: Section) -> LengthLimit:
    names = ("max_model_len", "native_max_model_len")
    sizes = {name: section.whole(name, minimum=1) for name in names}
    limit = LengthLimit(**sizes, source=section.text("source"))
    section.close()
    return limit


def _executor(section: Section) -> ExecutorSetup:
    texts = {name: section.text(name) for name in ("model", "device", "backend", "dtype")}
    setup = ExecutorSetup(**texts, threads=section.whole("threads", minimum=1))
    section.close()
    return setup


def _engine(section: Section) -> EngineTerms:
    terms = EngineTerms(
        name=section.text("name"),
        async_scheduling=section.flag("async_scheduling"),
        source=section.text("source"),
        checked=section.text("checked") if section.has("checked") else None,
    )
    section.close()
    return terms


def _provenance(section: Section) -> Provenance:
    texts = {name: section.text(name) for name in ("source", "date", "command", "licence")}
    try:
        date.fromisoformat(texts["date"])
    except ValueError:
        section.fail("date", f"must be a date like 2026-01-31 but got {texts['date']!r}")
    provenance = Provenance(**texts, notes=section.texts("notes"))
    section.close()
    return provenance
