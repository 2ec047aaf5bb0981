"""When requests of a twin arrive: counts per 10 s of the original, and how bunched requests are inside 10 s.

The counts fix the rate at every scale from 10 s up. Inside a slot that holds c arrivals, its c + 1 gaps
(before, between and after them) are drawn from the quantiles of all such gaps of the original and scaled to
fill the slot. What is lost: the order of the gaps, and bunches across the edge of a slot. Past the end of the
profile it starts over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmsim.units import SECOND

SLOT_S = 10
_GAP_QUANTILES = 201
_SMALLEST_GAP = 1e-9
"""Least relative gap, so that the gaps of a slot never all are 0 and can be scaled."""


@dataclass(frozen=True, slots=True)
class ArrivalProfile:
    """Arrivals per slot of `slot_s` seconds, shape (slots,), and quantiles of the gaps inside a slot.

    `gaps` are relative to the mean gap of their slot, at evenly spaced probabilities from 0 to 1, shape
    (knots,).
    """

    slot_s: int
    counts: NDArray[np.int64]
    gaps: NDArray[np.float64]

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Sorted arrival times in ns, shape (n,)."""
        return ProfileDraws(self, rng).next(n)


class ProfileDraws:
    """Arrivals drawn from a profile: `next` continues where the call before it ended, bit for bit."""

    def __init__(self, profile: ArrivalProfile, rng: np.random.Generator) -> None:
        self._profile = profile
        self._rng = rng
        self._until = np.cumsum(profile.counts)
        self._slot = 0
        self._place = 0.0
        self._latest = 0
        self._waiting: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def next(self, n: int) -> NDArray[np.int64]:
        """Sorted arrival times in ns of the next n arrivals, shape (n,)."""
        parts = [self._waiting]
        missing = n - len(self._waiting)
        while missing > 0:
            parts.append(self._slots(missing))
            missing -= len(parts[-1])
        times = np.concatenate(parts)
        self._waiting = times[n:]
        return times[:n]

    def _slots(self, least: int) -> NDArray[np.int64]:
        """Arrivals of the next slots, as many as hold `least`, or up to the end of the profile."""
        profile = self._profile
        before = int(self._until[self._slot - 1]) if self._slot else 0
        end = min(int(np.searchsorted(self._until, before + least)) + 1, len(profile.counts))
        counts = profile.counts[self._slot : end]
        self._slot = end % len(profile.counts)
        owned = counts + 1
        last = np.cumsum(owned) - 1
        uniform = self._rng.random(int(owned.sum()))
        gaps = np.interp(uniform, np.linspace(0.0, 1.0, len(profile.gaps)), profile.gaps)
        gaps = np.maximum(gaps, _SMALLEST_GAP)
        slot = np.repeat(np.arange(len(counts)), owned)
        share = gaps / np.add.reduceat(gaps, last - counts)[slot]
        # Shares of a slot sum to 1, so the running sum is the slot's index plus the place in it.
        share[0] += self._place
        place = np.cumsum(share)
        self._place = float(place[-1])
        times = np.rint(np.delete(place, last) * (profile.slot_s * SECOND)).astype(np.int64)
        times = np.maximum(np.maximum.accumulate(times), self._latest)
        self._latest = int(times[-1]) if len(times) else self._latest
        return times


def measure_profile(arrival_ns: NDArray[np.int64], slot_s: int = SLOT_S) -> ArrivalProfile:
    """Profile of sorted arrival times (ns, shape (n,)), from the first arrival on."""
    width = slot_s * SECOND
    since = arrival_ns - arrival_ns[0]
    counts = np.bincount(since // width).astype(np.int64)
    edges = np.arange(len(counts) + 1) * width
    owned = np.repeat(counts + 1, counts + 1)
    relative = np.diff(np.sort(np.concatenate((since, edges)))) / width * owned
    # The first arrival lies on the first edge by definition; its zero gap says nothing.
    gaps = np.quantile(relative[1:][owned[1:] > 1], np.linspace(0.0, 1.0, _GAP_QUANTILES))
    return ArrivalProfile(slot_s=slot_s, counts=counts, gaps=np.array([float(f"{gap:.4g}") for gap in gaps]))
