"""The calibrations that are shipped, a line each: `llmsim calibrations list`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llmsim.costs.calibration import Calibration, list_calibrations, load_calibration
from llmsim.errors import ConfigError, same_or_all

SOURCE_WIDTH = 44
_TENSOR_PARALLEL = re.compile(r"[-_]tp(\d+)$")
_HEADER = ("calibration", "tp", "form", "KV blocks", "max length", "error of the fit", "checked on", "source")


def shipped(device: str | None = None) -> list[Calibration]:
    """All shipped calibrations, sorted by name, or those of one device; ConfigError if the device has none."""
    names = list_calibrations()
    devices = {name.split("/")[0] for name in names}
    if device is not None and device not in devices:
        raise ConfigError(f"no shipped calibration is of device {device!r}.{same_or_all(device, devices)}")
    return [load_calibration(name) for name in names if device in (None, name.split("/")[0])]


def listed(calibrations: Sequence[Calibration]) -> list[dict[str, Any]]:
    """What the table shows as plain JSON values; `held_out` (against kernels or batches, not an engine) in
    percent or None, `tensor_parallel` None if not named."""
    return [
        {
            "name": one.name,
            "device": one.device,
            "model": one.model,
            "tensor_parallel": tensor_parallel(one.model),
            "form": one.batch_time.form,
            "num_blocks": one.kv.num_blocks,
            "block_size": one.kv.block_size,
            "max_model_len": one.max_model_len,
            "held_out": None
            if one.errors.held_out is None
            else {"mape_pct": one.errors.held_out.mape_pct, "max_pct": one.errors.held_out.max_pct},
            "checked": None if one.engine is None else one.engine.checked,
            "source": one.provenance.source,
        }
        for one in calibrations
    ]


def list_text(calibrations: Sequence[Calibration]) -> str:
    """The table: a line a calibration, a blank line between devices; mean held-out errors in percent."""
    rows = [_row(held) for held in listed(calibrations)]
    lines = aligned([_HEADER, *rows], right=(1, 3, 4, 5))
    gaps = [at for at in range(1, len(calibrations)) if calibrations[at].device != calibrations[at - 1].device]
    for at in reversed(gaps):
        lines.insert(at + 1, "")
    return "\n".join(lines)


def tensor_parallel(model: str) -> int | None:
    """The degree of tensor parallelism that a model's name ends in (`-tp2`), None if it names none."""
    found = _TENSOR_PARALLEL.search(model)
    return int(found[1]) if found else None


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines of columns padded to their widest cell; the columns in `right` are flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(held: dict[str, Any]) -> tuple[str, ...]:
    size = "" if held["block_size"] == 16 else f" of {held['block_size']}"
    error = held["held_out"]
    return (
        held["name"],
        "-" if held["tensor_parallel"] is None else str(held["tensor_parallel"]),
        held["form"],
        f"{held['num_blocks']:,}{size}",
        f"{held['max_model_len']:,}",
        "none known" if error is None else f"{error['mape_pct']:.1f} %",
        "-" if held["checked"] is None else held["checked"].split(",")[0],
        short_source(held["source"]),
    )


def short_source(source: str) -> str:
    """The first few words: up to a colon, semicolon or bracket, or as many as fit."""
    first = re.split(r"[:;(]|\. |\.$", source, maxsplit=1)[0].strip()
    if len(first) <= SOURCE_WIDTH:
        return first
    start = first[: SOURCE_WIDTH - 2]
    return start.rsplit(",", 1)[0] if "," in start else start.rsplit(" ", 1)[0] + " .."
