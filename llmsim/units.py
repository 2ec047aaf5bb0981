"""Units of the simulator: the clock is an int number of nanoseconds, prices are int femtoseconds. Imports nothing."""

SECOND = 10**9
"""Nanoseconds in a second: the SimPy clock counts these, as Python ints."""

MILLISECOND = 10**6
MICROSECOND = 10**3

FS_PER_NS = 10**6
"""Femtoseconds in a nanosecond: cost models price in these, so that sums of prices are exact integers."""

FS_PER_SECOND = 10**15

GIB = 2**30


def to_ns(seconds: float) -> int:
    """Nearest whole nanosecond to `seconds`."""
    return round(seconds * SECOND)


def to_seconds(ns: int) -> float:
    """Seconds of an int number of nanoseconds."""
    return ns / SECOND
