"""Service levels: run-wide limits (`--slo "ttft:200 tpot:50 e2el:5000"`) and the targets requests carry.

A request meets its service level if it finished and every limit that applies to it holds: the run-wide ones
and those of its own class. Failed, unfinished and rejected requests have not met it. A limit on something a
request does not have (the gaps of a single token) holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pandas as pd

from llmsim.core.request import NEVER, SloClass
from llmsim.errors import ConfigError, did_you_mean
from llmsim.metrics.latency import Definitions, elapsed_ns, tpot_ns, ttft_ns
from llmsim.metrics.quantiles import Floats, Ints
from llmsim.metrics.timeline import Mask
from llmsim.units import MILLISECOND, SECOND

TbtRule = Literal["max", "mean"]
"""How a request's own TBT target is judged: every gap within it, or their mean (the tpot)."""

CLASS_TARGETS = ("ttft_s_target", "tbt_s", "ttlt_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Limits that hold for every request of a run, milliseconds; None: no limit.

    `itl` limits every single gap of the request, `tpot` their mean.
    """

    ttft: float | None = None
    tpot: float | None = None
    itl: float | None = None
    e2el: float | None = None

    def limits(self) -> dict[str, float]:
        """The limits that are set, by metric, milliseconds."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: limit for name, limit in values.items() if limit is not None}


def parse_slo(items: str | Iterable[str]) -> Slo:
    """`ttft:200 tpot:50ms e2el<=5s` (one string, or its words) as limits in milliseconds.

    vLLM's `--goodput` syntax, with `itl`, units (ms, which is meant without one, and s) and `<=` besides. Raises
    ConfigError for an unknown metric, a repeated one, or a limit that is not a positive time.
    """
    text = items if isinstance(items, str) else " ".join(items)
    known = [field.name for field in fields(Slo)]
    limits: dict[str, float] = {}
    for word in re.sub(r"\s*(:|<=)\s*", r"\1", text).split():
        name, sign, limit = re.match(r"([^:<>=]*)([:<>=]*)(.*)", word).groups()  # type: ignore[union-attr]  # all match
        if sign not in (":", "<="):
            raise ConfigError(f"an SLO is METRIC:LIMIT, as ttft:200 (milliseconds) or ttft:1s, but got {word!r}")
        if name not in known:
            raise ConfigError(f"an SLO on {name!r} is not known.{did_you_mean(name, known)}")
        if name in limits:
            raise ConfigError(f"the SLO on {name} is given twice: {limits[name]:g} ms and {limit}")
        limits[name] = _milliseconds(word, limit)
    return Slo(**limits)


def _milliseconds(word: str, text: str) -> float:
    found = re.fullmatch(r"([^a-df-z]+)(ms|s)?", text, re.IGNORECASE)  # e: of 1e3
    try:
        limit = float(found[1]) * (1000.0 if (found[2] or "").lower() == "s" else 1.0) if found else float("nan")
    except ValueError:
        limit = float("nan")
    if not 0 < limit < float("inf"):
        raise ConfigError(
            f"an SLO limit must be a positive number of milliseconds, or a time as 200ms or 1s, but got {word!r}"
        )
    return limit


def has_limits(classes: Iterable[SloClass], slo: Slo | None = None) -> bool:
    """Whether any limit applies to requests of these classes."""
    if slo is not None and slo.limits():
        return True
    return any(target is not None for c in classes for target in (c.ttft_s, c.tbt_s, c.ttlt_s))


def has_target(requests: pd.DataFrame, slo: Slo | None = None) -> Mask:
    """Requests (rows,) on which any limit applies: all of them with a run-wide one, else those of a class."""
    if slo is not None and slo.limits():
        return np.ones(len(requests), dtype=bool)
    carried = requests[list(CLASS_TARGETS)].notna().to_numpy(dtype=bool)
    return np.asarray(carried.any(axis=1), dtype=bool)


def slo_met(
    requests: pd.DataFrame,
    longest_gap_ns: Ints,
    slo: Slo | None = None,
    *,
    definitions: Definitions = "vllm",
    tbt_rule: TbtRule = "max",
) -> Mask:
    """Requests (rows,) that finished within every limit that applies to them.

    `longest_gap_ns` (rows,) as timeline.longest_gaps gives it, NEVER for none. A request without any limit
    meets its (empty) service level by finishing; ask has_target which those are.
    """
    ttft = ttft_ns(requests, definitions)
    tpot = tpot_ns(requests)
    gap = np.where(longest_gap_ns == NEVER, np.nan, longest_gap_ns)
    e2el = elapsed_ns(requests, "finish_ns")
    met: Mask = np.asarray(requests["status"] == "finished", dtype=bool)
    measured = {"ttft": ttft, "tpot": tpot, "itl": gap, "e2el": e2el}
    for name, limit in (slo.limits() if slo is not None else {}).items():
        met = np.logical_and(met, _within(measured[name], limit * MILLISECOND))
    for column, values in zip(CLASS_TARGETS, (ttft, gap if tbt_rule == "max" else tpot, e2el), strict=True):
        met = np.logical_and(met, _within(values, requests[column].to_numpy(dtype=np.float64) * SECOND))
    return met


def _within(values: Floats, limit_ns: float | Floats) -> Mask:
    """Not above the limit, to the nearest ns; a missing value or a missing limit is within."""
    within: Mask = ~(values > np.rint(limit_ns))
    return within
