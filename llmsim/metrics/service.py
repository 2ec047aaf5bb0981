"""The `replicas` part of a summary: who was there when, what that cost, how long those removed took to drain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmsim.core.request import NEVER
from llmsim.metrics.usage import Presence
from llmsim.units import SECOND

Report = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """A replica of the run, times int ns (NEVER: not in this run): added, up (requests may come), removed, left."""

    replica: int
    added_ns: int
    up_ns: int
    removed_ns: int = NEVER
    left_ns: int = NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStays:
    """The replicas of a group; `gpus` is how many cards each takes."""

    model: str
    calibration: str
    gpus: int
    stays: tuple[Stay, ...]


def presence_of(groups: Sequence[GroupStays]) -> Presence:
    """When each replica of the run was there, in the order of their numbers."""
    stays = sorted((stay for group in groups for stay in group.stays), key=lambda stay: stay.replica)
    return Presence.of([(stay.added_ns, None if stay.left_ns == NEVER else stay.left_ns) for stay in stays])


def service_report(groups: Sequence[GroupStays], end_ns: int, held: tuple[int, int, int]) -> Report:
    """Replica- and GPU-seconds from the start of the run to `end_ns`, the counts over time and the drains, by group.

    A replica counts from its addition until it has left. `held` are the requests that had to wait at the front end for
    a replica to come into service: how many, the longest wait in ns, and how many waited still at the end.
    """
    reports = [_group(group, end_ns) for group in groups]
    requests, longest_ns, left = held
    return {
        "replica_seconds": sum(report["replica_seconds"] for report in reports),
        "gpu_seconds": sum(report["gpu_seconds"] for report in reports),
        "until_s": end_ns / SECOND,
        "waited_for_a_replica": {"requests": requests, "longest_s": longest_ns / SECOND, "unserved": left},
        "groups": reports,
    }


def _group(group: GroupStays, end_ns: int) -> Report:
    there = sum(_clipped(stay.left_ns, end_ns) - min(stay.added_ns, end_ns) for stay in group.stays) / SECOND
    removed = [stay for stay in group.stays if stay.removed_ns != NEVER and stay.removed_ns <= end_ns]
    return {
        "model": group.model,
        "calibration": group.calibration,
        "gpus_per_replica": group.gpus,
        "replica_seconds": there,
        "gpu_seconds": there * group.gpus,
        "timeline": _counts(group.stays, end_ns),
        "drains": [
            {
                "replica": stay.replica,
                "removed_at_s": stay.removed_ns / SECOND,
                "drain_s": None if stay.left_ns == NEVER else (stay.left_ns - stay.removed_ns) / SECOND,
            }
            for stay in removed
        ],
    }


def _counts(stays: Sequence[Stay], end_ns: int) -> list[Report]:
    """Replicas starting, serving and draining from each time on at which one of these changes, up to `end_ns`."""
    rows = []
    for stay in stays:
        until = _clipped(stay.removed_ns, end_ns + 1)
        up = min(max(stay.up_ns, stay.added_ns), until)
        rows.append((stay.added_ns, up, until, _clipped(stay.left_ns, end_ns + 1)))
    added, up, removed, left = np.sort(np.array(rows, dtype=np.int64).reshape(-1, 4), axis=0).T
    at = np.unique(np.concatenate([[0], added, up, removed, left]))
    at = at[at <= end_ns]
    seen = {
        name: np.searchsorted(times, at, "right")
        for name, times in zip("aurl", (added, up, removed, left), strict=True)
    }
    counts = {
        "starting": seen["a"] - seen["u"],
        "serving": seen["u"] - seen["r"],
        "draining": seen["r"] - seen["l"],
    }
    report: list[Report] = []
    for i, time in enumerate(at.tolist()):
        row = {name: int(values[i]) for name, values in counts.items()}
        if not report or any(report[-1][name] != count for name, count in row.items()):
            report.append({"at_s": time / SECOND, **row})
    return report


def _clipped(at_ns: int, end_ns: int) -> int:
    return end_ns if at_ns == NEVER else min(at_ns, end_ns)
