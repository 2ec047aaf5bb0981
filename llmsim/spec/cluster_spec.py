"""What a cluster is made of: plain frozen dataclasses that the strict YAML loader fills."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from llmsim.errors import ConfigError
from llmsim.spec.engines import engine_defaults

LONGEST_S = 1e9
"""Seconds (32 years) that a run's times may reach: well inside what an int64 of nanoseconds holds."""

MOST_REPLICAS = 100_000
"""Replicas of a group over the whole run: each is built before the run begins."""


def at_least(minimum: float, most: float = math.inf, **values: float | None) -> None:
    """ConfigError for the first of `values` (None: not given) outside `minimum` to `most`."""
    for name, value in values.items():
        if value is not None and not (minimum <= value <= most and value < math.inf):
            limit = "" if most == math.inf else f" and at most {most:g}"
            raise ConfigError(f"{name} must be at least {minimum:g}{limit} but got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """The engine around the scheduler; None takes the calibration's value.

    `name` is an engine and version (spec/engines.py): its policy, and what such a server starts with on the GPU where
    nothing else is given; None: no engine's defaults.
    A `block_size` without `num_blocks` shares the calibration's KV memory out anew: its bytes stay. `max_model_len`
    is the longest sequence, prompt and answer. `watermark` is the share of blocks kept free at admission.
    `first_token_at_prefill_end` and `preempted_request_regenerates_output` are the semantics of vLLM (true, false) or
    of SLAI and Sarathi's OSDI branch (false, true). `async_scheduling`: each batch is formed when the one before it
    starts (vLLM from 0.14 on; policies that do so have `runs_ahead`; None takes the calibration's engine).
    `enable_prefix_caching`: KV blocks are found again by their content (policies that can have `finds_prefixes`; None:
    they are not). `host_overhead_s` seconds are added to every iteration. The engine forms no batch in the first
    `startup_lag_s` seconds, though requests arrive (SLAI's driver hands 16,384 over before it starts); a replica that
    a schedule adds gets its first request after them.
    """

    name: str | None = None
    block_size: int | None = None
    num_blocks: int | None = None
    watermark: float = 0.01
    max_model_len: int | None = None
    first_token_at_prefill_end: bool = True
    preempted_request_regenerates_output: bool = False
    async_scheduling: bool | None = None
    enable_prefix_caching: bool | None = None
    host_overhead_s: float | None = None
    startup_lag_s: float = 0.0

    def __post_init__(self) -> None:
        if self.name is not None:
            engine_defaults(self.name)
        at_least(1, num_blocks=self.num_blocks, max_model_len=self.max_model_len)
        at_least(1, 4096, block_size=self.block_size)
        at_least(0, 3600, host_overhead_s=self.host_overhead_s)
        at_least(0, LONGEST_S, startup_lag_s=self.startup_lag_s)
        if not 0 <= self.watermark < 1:
            raise ConfigError(f"watermark is a share and must be in [0, 1) but got {self.watermark}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """From `at_s` seconds on (simulation clock) the group is to have this many `replicas`.

    Those that it adds are up after `startup_lag_s` seconds (None: the engine's).
    """

    at_s: float
    replicas: int
    startup_lag_s: float | None = None

    def __post_init__(self) -> None:
        at_least(0, LONGEST_S, startup_lag_s=self.startup_lag_s)
        if not 0 < self.at_s <= LONGEST_S:
            raise ConfigError(
                f"at_s must be above 0 and at most {LONGEST_S:g} but got {self.at_s}; what is there from the start is "
                "the group's `replicas`"
            )
        at_least(0, replicas=self.replicas)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """Replicas of a kind; what is None is as in the run (calibration, scheduler, engine).

    `model` is the name by which requests ask for what the group serves (None: the calibration's model, without the
    -tpN of cards that share it). `replicas` are there from the start; each step of `schedule` changes how many.
    """

    replicas: int = 1
    calibration: str | None = None
    scheduler: str | dict[str, Any] | None = None
    engine: EngineSpec | None = None
    model: str | None = None
    schedule: tuple[StepSpec, ...] | None = None

    def __post_init__(self) -> None:
        at_least(0, replicas=self.replicas)
        if not self.replicas and self.schedule is None:
            raise ConfigError("replicas must be at least 1 but got 0; a group with a schedule may begin with 0")
        if self.model is not None and not self.model.strip():
            raise ConfigError(f"model must be a name but got {self.model!r}; leave it out, or name one")
        if self.schedule is not None:
            object.__setattr__(self, "schedule", tuple(self.schedule))
            self._check_schedule(self.schedule)
        at_least(0, MOST_REPLICAS, **{"replicas of a group over the whole run": self.ever})

    def _check_schedule(self, schedule: tuple[StepSpec, ...]) -> None:
        if not schedule:
            raise ConfigError("schedule has no step; leave it out, or give {at_s: ..., replicas: ...}")
        for one, following in pairwise(schedule):
            if following.at_s <= one.at_s:
                raise ConfigError(
                    f"schedule: steps must be in order of time, but at_s {following.at_s:g} follows {one.at_s:g}; sort "
                    "them, and give each time once"
                )
        if not self.ever:
            raise ConfigError("replicas is 0 and the schedule adds none: the group serves nobody; drop it")

    @property
    def ever(self) -> int:
        """Replicas that are there at any time; one that is added later is another than one removed before."""
        counts = [self.replicas, *(step.replicas for step in self.schedule or ())]
        return counts[0] + sum(max(after - before, 0) for before, after in pairwise(counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """How many replicas, of which kinds, and who sends requests to them.

    Either `replicas` equal ones, or `groups`: replicas are numbered group by group, in a group in order of addition;
    `replicas` then counts all that are there at any time. All engines of a cluster must have the same semantics
    (`first_token_at_prefill_end`, `preempted_request_regenerates_output`).
    """

    replicas: int = 1
    router: str | dict[str, Any] = "round_robin"
    groups: tuple[GroupSpec, ...] = ()

    def __post_init__(self) -> None:
        at_least(1, replicas=self.replicas)
        object.__setattr__(self, "groups", tuple(self.groups))
        total = sum(group.ever for group in self.groups)
        if self.groups and self.replicas not in (1, total):
            over = ", over their schedules," if self.scheduled else ""
            raise ConfigError(
                f"cluster: groups hold {total} replicas{over} but replicas is {self.replicas}; leave replicas out "
                "(--replicas, cluster.replicas): groups say how many themselves, as in cluster.groups.0.replicas"
            )
        if self.groups:
            object.__setattr__(self, "replicas", total)

    @property
    def scheduled(self) -> bool:
        """Whether replicas come or go during the run."""
        return any(group.schedule is not None for group in self.groups)
