"""A calibration: what batches cost on a device with a model, where that holds, how well, and whence it comes.

The plain data of it. `calibration` loads and saves, `calibration_file` reads the format, docs/calibrations.md
describes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmsim.costs.box import Box, StrictRange
from llmsim.costs.forms import BatchTime
from llmsim.costs.positive import check_positive
from llmsim.errors import CalibrationError

if TYPE_CHECKING:
    from llmsim.costs.base import CostModel

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFigures:
    """Relative errors of predicted against measured batch times over `cases` measurements, in percent."""

    cases: int
    mape_pct: float
    p95_pct: float
    max_pct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FitErrors:
    """Errors on the data of the fit and on data kept out of it; None where nobody published them."""

    in_sample: ErrorFigures | None
    held_out: ErrorFigures | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOverhead:
    """The engine's own time per iteration, added to each; 0 where the batch times already include it."""

    seconds: float
    included_in_batch_times: bool
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KvMemory:
    """The KV cache of the device: `num_blocks` blocks of `block_size` tokens, `block_bytes` bytes each."""

    block_size: int
    num_blocks: int
    block_bytes: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthLimit:
    """Longest sequence in tokens that the engine was set to take, and that the model was trained for."""

    max_model_len: int
    native_max_model_len: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the numbers come from, since when, how to make the file again, and under which licence."""

    source: str
    date: str
    command: str
    licence: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSetup:
    """What was measured, so that it can be run again: `model` is a shape's name or file, the rest as in DeviceSpec."""

    model: str
    device: str
    backend: str
    dtype: str
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTerms:
    """The engine whose batches these are, by name and version, and how it forms them (`AsyncReplica`).

    `checked`: the run of such an engine that a simulation was held against, and how close it came; None if there is
    none.
    """

    name: str
    async_scheduling: bool
    source: str
    checked: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One calibration file, validated. `executor` is None where nobody's executor here made the measurements, `engine`
    where the batch times are of no particular engine."""

    device: str
    model: str
    batch_time: BatchTime
    box: Box
    errors: FitErrors
    host_overhead: HostOverhead
    kv: KvMemory
    limit: LengthLimit
    provenance: Provenance
    executor: ExecutorSetup | None = None
    engine: EngineTerms | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Check what concerns several parts: host time is paid once, and prices in the box are positive."""
        host = self.host_overhead
        if host.included_in_batch_times and host.seconds:
            raise CalibrationError(
                f"host_overhead.seconds must be 0 where batch times include it but got {host.seconds:g}"
            )
        if not host.included_in_batch_times and not host.seconds:
            raise CalibrationError(
                "host_overhead.seconds is 0 although batch times do not include the host's time;"
                " measure it or give it"
            )
        check_positive(self.batch_time, self.box, host.seconds)

    @property
    def name(self) -> str:
        """`device/model`, which `load_calibration` takes."""
        return f"{self.device}/{self.model}"

    @property
    def max_model_len(self) -> int:
        """Longest sequence in tokens, prompt and outputs."""
        return self.limit.max_model_len

    @property
    def host_overhead_s(self) -> float:
        """Seconds that the host adds to each iteration; already in what `cost_model` returns."""
        return self.host_overhead.seconds

    def cost_model(self, *, strict_range: bool = False) -> CostModel:
        """The model that prices whole iterations, host overhead included.

        `strict_range` makes it refuse batches outside the box.
        """
        model = self.batch_time.cost_model(self.host_overhead.seconds)
        return StrictRange(model, self.box, self.name) if strict_range else model

    def to_json(self) -> str:
        """The text of the file: the same calibration gives the same bytes."""
        held: dict[str, Any] = {
            "schema_version": self.schema_version,
            "device": self.device,
            "model": self.model,
            "batch_time": self.batch_time.to_json(),
            "box": {
                "source": self.box.source,
                "ranges": {item.quantity: {"min": item.low, "max": item.high} for item in self.box.ranges},
            },
            "errors": {
                "in_sample": _plain(self.errors.in_sample),
                "held_out": _plain(self.errors.held_out),
                "note": self.errors.note,
            },
            "host_overhead": _plain(self.host_overhead),
            "kv": _plain(self.kv),
            "limit": _plain(self.limit),
            **({} if self.executor is None else {"executor": _plain(self.executor)}),
            **({} if self.engine is None else {"engine": _plain(self.engine)}),
            "provenance": {**(_plain(self.provenance) or {}), "notes": list(self.provenance.notes)},
        }
        return json.dumps(held, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(part: Any) -> dict[str, Any] | None:
    """A flat dataclass as a dict."""
    return None if part is None else {name: getattr(part, name) for name in part.__slots__}
