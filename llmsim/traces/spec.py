"""What a workload is made of: plain frozen dataclasses that a strict YAML loader fills."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from llmsim.core.request import SloClass
from llmsim.errors import ConfigError
from llmsim.traces import checks
from llmsim.traces.arrivals import ArrivalsSpec
from llmsim.traces.database import check_memory
from llmsim.traces.formats import TIME_UNITS, named
from llmsim.traces.lengths import LengthsSpec
from llmsim.traces.limits import ON_BAD, ON_LONG


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSpec:
    """A service class and the share of requests that belong to it; targets in seconds, None = none.

    `tier` is Niyama's index (0 = interactive), `priority` SLAI's paying user, `model` the model it asks for (None:
    what the trace says, if it says).
    """

    name: str = "default"
    share: float = 1.0
    tbt_s: float | None = None
    ttft_s: float | None = None
    ttlt_s: float | None = None
    tier: int | None = None
    priority: bool = False
    model: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"classes: name must be a word but got {self.name!r}")
        where = f"classes: {self.name}"
        if self.share is None:
            raise ConfigError(f"{where}: share must be a number >= 0 and <= 1 but got None")
        checks.number(f"{where}: share", self.share, least=0, most=1)
        for target in ("tbt_s", "ttft_s", "ttlt_s"):
            checks.number(f"{where}: {target}", getattr(self, target), above=0)
        checks.whole(f"{where}: tier", self.tier, 0)
        if not isinstance(self.priority, bool):
            raise ConfigError(f"{where}: priority must be true or false but got {self.priority!r}")
        if self.model is not None and (not isinstance(self.model, str) or not self.model.strip()):
            raise ConfigError(f"{where}: model must be a name but got {self.model!r}; leave it out, or name one")

    def slo(self) -> SloClass:
        """The class as requests carry it."""
        return SloClass(self.name, self.tbt_s, self.ttft_s, self.ttlt_s, self.tier, self.priority, self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """A workload: which requests, how long, when, with which service level.

    `trace` is a path or the name of a shipped workload (None: all synthetic). `format`, `columns`, `time_unit`,
    `on_bad`, `on_long`, `sort` and `memory` are those of `readers.read_trace`; the limit behind `on_long` is the
    model's. Times of a file count from its first row that is sent, unless `keep_clock` keeps the file's own clock.
    `num_requests` None takes the whole trace (of a twin: as many as its original had). `time_scale` multiplies the
    times of the trace: 0.5 doubles the rate. `shuffle` puts the rows' lengths in random order (seeded) and leaves the
    arrivals in place. `hash_block_size`: the trace's `hash_ids` stand for blocks of so many tokens and say what
    requests have in common (None: nothing is said of that). `classes` replace the service levels a trace may hold;
    their shares must sum to 1.
    """

    trace: str | None = None
    format: str | None = None
    columns: dict[str, str] | None = None
    time_unit: str | None = None
    on_bad: str = "error"
    on_long: str = "error"
    lengths: LengthsSpec = field(default_factory=LengthsSpec)
    arrivals: ArrivalsSpec = field(default_factory=ArrivalsSpec)
    num_requests: int | None = None
    time_scale: float = 1.0
    classes: tuple[ClassSpec, ...] = ()
    shuffle: bool = False
    sort: bool = False
    memory: str | None = None
    hash_block_size: int | None = None
    keep_clock: bool = False

    def __post_init__(self) -> None:
        if self.trace is not None:
            object.__setattr__(self, "trace", str(self.trace))  # a Path would not fit YAML and manifest
        checks.one_of("workload.on_bad", self.on_bad, ON_BAD)
        checks.one_of("workload.on_long", self.on_long, ON_LONG)
        if self.time_unit is not None:
            checks.one_of("workload.time_unit", self.time_unit, TIME_UNITS)
        if self.format is not None:
            named(self.format)
        checks.whole("workload.num_requests", self.num_requests, 1)
        checks.whole("workload.hash_block_size", self.hash_block_size, 1)
        if self.memory is not None:
            check_memory(self.memory)
        if not isinstance(self.keep_clock, bool):
            raise ConfigError(f"workload.keep_clock must be true or false but got {self.keep_clock!r}")
        if self.time_scale is None:
            raise ConfigError("workload.time_scale must be a number > 0 but got None")
        checks.number("workload.time_scale", self.time_scale, above=0)
        object.__setattr__(self, "classes", tuple(self.classes))
        self._check_classes()
        self._check_sources()

    def _check_classes(self) -> None:
        """Names differ, shares sum to 1."""
        names = [c.name for c in self.classes]
        if len(set(names)) < len(names):
            raise ConfigError(f"workload.classes must have different names but got {', '.join(names)}")
        total = math.fsum(c.share for c in self.classes)
        if self.classes and not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ConfigError(f"workload.classes: shares must sum to 1 but sum to {total:g}; correct them")

    def _check_sources(self) -> None:
        """What is taken from a trace needs one; times are scaled only where they come from it."""
        if self.hash_block_size is not None and (self.trace is None or self.lengths.kind != "trace"):
            raise ConfigError(
                "workload.hash_block_size is for requests that are the rows of a trace with hash_ids (lengths.kind "
                f"'trace') but got {self.hash_block_size} with lengths.kind {self.lengths.kind!r}"
                f"{'' if self.trace else ' and no trace'}; leave it out"
            )
        if self.keep_clock and (self.arrivals.kind != "trace" or self.trace is None):
            raise ConfigError(
                "workload.keep_clock keeps the times that a trace file has, but "
                f"{f'arrivals are {self.arrivals.kind}' if self.trace else 'workload.trace names none'}; leave it out"
            )
        if self.arrivals.kind != "trace" and self.time_scale != 1.0:
            raise ConfigError(
                f"workload.time_scale must be 1 with arrivals.kind {self.arrivals.kind!r} but got "
                f"{self.time_scale}; it scales the times of a trace: set arrivals.rate instead"
            )
        if self.arrivals.rate is not None and self.arrivals.kind == "trace" and self.time_scale != 1.0:
            raise ConfigError("workload.time_scale and arrivals.rate both scale the trace's times; give one of them")
        if self.trace is None and (self.sort or self.memory is not None):
            raise ConfigError("workload.sort and workload.memory are for trace files, but workload.trace names none")
        if self.trace is None and (missing := list(self._missing())):
            raise ConfigError("; ".join(missing))

    def _missing(self) -> Iterator[str]:
        """What a workload without a trace lacks, with the options that give it."""
        if self.lengths.kind != "synthetic":
            yield (
                f"workload.trace is needed for lengths.kind {self.lengths.kind!r}: name a file or a shipped workload "
                "(--trace), or draw lengths (--prompt-tokens 1500 --output-tokens 300)"
            )
        if self.arrivals.kind == "trace":
            yield (
                "workload.trace is needed for arrivals.kind 'trace': name one, or give --rate or --max-concurrency "
                "(workload.arrivals)"
            )
        if self.num_requests is None:
            yield "workload.num_requests is needed where no trace says how many: --num-requests"
