"""Plan: what a capacity search looks for, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.errors import ConfigError, did_you_mean
from llmsim.studies.capacity.osdi import DELAY, DELAY_LIMIT_S, osdi_search
from llmsim.studies.capacity.search import Search, rate_search, replica_search

if TYPE_CHECKING:
    from llmsim.studies.capacity.criterion import Criterion

FIND = ("rate", "replicas")
RULES = ("bisection", "osdi")
START_SHARE = 0.5
"""A rate search starts at this share of the fluid bound, where one is given ..."""
START_RPS = 1.0
"""... and here where none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to search for, and how.

    `seeds` are whole numbers >= 0, one search each; None means five from the spec's seed on, or that one alone where
    the workload is the same for all. `start` is the first candidate (None: half the bound, else 1 request/s; one
    replica). `precision` is a share of the rate. `check` adds two probes to each rate search (search.CHECKS).
    `bound_rps` is an upper bound on the whole cluster's rate (on one replica's, where replicas are searched): a start,
    and printed. None: the fluid bound (llmsim.theory.fluid) of the first run.
    """

    criterion: Criterion
    find: str = "rate"
    rule: str = "bisection"
    seeds: tuple[int, ...] | None = None
    start: float | None = None
    precision: float = 0.01
    check: bool = True
    max_replicas: int = 64
    bound_rps: float | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("find", self.find, FIND), ("rule", self.rule, RULES)):
            if value not in known:
                hint = did_you_mean(value, known)
                raise ConfigError(f"{name} must be one of {', '.join(known)} but got {value!r}.{hint}")
        if self.rule == "osdi" and self.find != "rate":
            raise ConfigError("the OSDI rule searches for a rate; leave --rule out to find replicas")
        if self.seeds is not None and not self.seeds:
            raise ConfigError("seeds must be at least 1 but got 0")
        if self.max_replicas < 1:
            raise ConfigError(f"max_replicas must be at least 1 but got {self.max_replicas}")
        if self.bound_rps is not None and not self.bound_rps > 0:
            raise ConfigError(f"bound_rps must be above 0 requests/s but got {self.bound_rps}")

    @property
    def first(self) -> float:
        """The first candidate of every search."""
        if self.start is not None:
            return self.start
        if self.find == "replicas":
            return 1
        if self.bound_rps is None:
            return START_RPS
        return float(f"{START_SHARE * self.bound_rps:.2g}")  # a solver's last digits must not move the probes

    def search(self) -> Search:
        """A new search. ConfigError for a start or a precision that cannot be used."""
        if self.find == "replicas":
            if self.first != int(self.first):
                raise ConfigError(f"start must be a whole number of replicas but got {self.first:g}")
            return replica_search(self.max_replicas, int(self.first))
        if self.rule == "osdi":
            return osdi_search(self.first, self._delay_limit_s())
        return rate_search(self.first, self.precision, check=self.check)

    def _delay_limit_s(self) -> float:
        limits = [c.limit for c in self.criterion.conditions if c.name == DELAY and c.limit is not None]
        return limits[0] / 1000 if limits else DELAY_LIMIT_S
