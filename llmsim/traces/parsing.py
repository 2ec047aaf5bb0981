"""Text cells to numbers: every cell that cannot be used becomes a fault with its reason, none is guessed.

A fault marks rows; whether they stop the reading or are left out is decided in `readers`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]

NS_PER_UNIT = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DIGITS = {"s": 9, "ms": 6, "us": 3, "ns": 0}
"""Decimal places of a unit that a nanosecond clock can hold."""
UNIX_TIME_NS = 10**9 * 10**9
"""Numeric times from here on (Unix time of 9 September 2001) are absolute, below since a start."""
_FLOAT_NS = 2**52
_MISSING = ("", "nan", "null", "none", "na", "n/a", "<na>", "nat")
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": False}


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows (bool, shape (rows,)) whose cell in `column` cannot be used, why, and what it should have been."""

    reason: str
    rows: Mask
    column: str
    complaint: str
    remedy: str = "correct the row"


def parse_count(text: pd.Series, column: str) -> tuple[Ints, list[Fault]]:
    """Token counts (at least 1) of a text column; 0 where a fault is reported."""
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
    blank, unreadable = _unreadable(text, numbers)
    # Above 2**53 a float is no longer exact, and no prompt is that long.
    whole = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**53)
    values = np.where(whole, numbers, 0).astype(np.int64)
    return values, [
        Fault("missing_value", blank, column, "is empty; a whole number of tokens >= 1 is needed"),
        Fault("not_a_number", unreadable, column, "is not a number; a whole number of tokens >= 1 is needed"),
        Fault(
            "not_an_integer", ~whole & ~blank & ~unreadable, column, "is not a whole number of tokens >= 1"
        ),
        Fault(
            "not_positive",
            whole & (values < 1),
            column,
            "is not positive; a request has at least 1 token of each",
        ),
    ]


def needs_digits(time_ns: Ints) -> bool:
    """Whether one of these times is so late that a float no longer tells single nanoseconds (52 days)."""
    return bool((time_ns >= _FLOAT_NS).any())


def parse_time(text: pd.Series, column: str, unit: str, exact: bool = False) -> tuple[Ints, list[Fault]]:
    """Times in ns of a text column in `unit` (s, ms, us, ns since start or Unix epoch, or 'datetime').

    Date-times are ns since 1970 UTC, exact to the ns (Azure writes 100 ns digits); without a zone they are
    UTC. Plain decimals are read digit by digit if one of the column `needs_digits`, or if `exact` says so.
    """
    if unit == "datetime":
        return _parse_datetime(text, column)
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
    blank, unreadable = _unreadable(text, numbers)
    scaled = numbers * NS_PER_UNIT[unit]
    good = np.isfinite(scaled) & (scaled >= 0) & (scaled < 2.0**63)
    values: Ints = np.rint(np.where(good, scaled, 0)).astype(np.int64)
    if exact or needs_digits(values):
        values = _exact_decimals(text, unit, values, good)
    needs = f"a time in {unit} >= 0 is needed"
    datetime_hint = (
        "correct the row; if the column holds date-times, give time_unit='datetime' (--time-unit datetime)"
    )
    return values, [
        Fault("missing_value", blank, column, f"is empty; {needs}"),
        Fault("bad_time", unreadable, column, f"is not a number; {needs}", datetime_hint),
        Fault("bad_time", ~good & ~blank & ~unreadable, column, f"is not a time; {needs}"),
    ]


def _parse_datetime(text: pd.Series, column: str) -> tuple[Ints, list[Fault]]:
    """ns since 1970 UTC of ISO 8601 date-times with any number of fraction digits and an optional zone."""
    times = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    blank = text.str.strip().str.lower().isin(_MISSING).to_numpy(dtype=np.bool_)
    bad = times.isna().to_numpy(dtype=np.bool_) & ~blank
    # '5' would pass for the year 5 in some readers: plain numbers are never date-times.
    bad |= pd.to_numeric(text, errors="coerce").notna().to_numpy(dtype=np.bool_) & ~blank
    # An int64 of ns ends in 2262.
    bad |= (~times.dt.year.between(1970, 2261)).to_numpy(dtype=np.bool_) & ~blank
    usable = times.where(~(bad | blank), pd.Timestamp(0, tz="UTC"))
    values = np.asarray(usable.dt.as_unit("ns").astype("int64"), dtype=np.int64)
    remedy = (
        "correct the row; if the column holds numbers, give their unit with time_unit='s' (--time-unit s)"
    )
    complaint = "is not a date-time such as 2023-11-16 18:17:03.9799600"
    return values, [
        Fault("missing_value", blank, column, "is empty; a date-time is needed"),
        Fault("bad_time", bad, column, complaint, remedy),
    ]


def _exact_decimals(text: pd.Series, unit: str, values: Ints, good: Mask) -> Ints:
    """`values` with plain decimal numbers read digit by digit, where a float would round nanoseconds."""
    places = _DIGITS[unit]
    parts = text.str.strip().str.extract(r"^(\d{1,19})(?:\.(\d*))?$")
    plain = parts[0].notna().to_numpy(dtype=np.bool_) & good
    whole: Ints = parts[0][plain].astype("int64").to_numpy() * 10**places
    if places:
        fraction = parts[1][plain].fillna("").str.slice(0, places).str.pad(places, side="right", fillchar="0")
        whole += fraction.astype("int64").to_numpy()
    values = values.copy()
    values[plain] = whole
    return values


def parse_seconds(text: pd.Series, column: str) -> tuple[NDArray[np.float64], list[Fault]]:
    """Optional positive seconds; NaN where the cell is empty."""
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
    _, unreadable = _unreadable(text, numbers)
    bad = unreadable | (numbers <= 0) | np.isinf(numbers)
    return numbers, [
        Fault("bad_target", bad, column, "is not a number of seconds > 0", "correct it or leave it empty")
    ]


def parse_tier(text: pd.Series, column: str) -> tuple[pd.Series, list[Fault]]:
    """Optional tier (whole number >= 0) as Int64; <NA> where the cell is empty."""
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
    blank, _ = _unreadable(text, numbers)
    good = np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers))
    tier = pd.Series(np.where(good, numbers, np.nan)).astype("Int64")
    fault = Fault(
        "bad_tier", ~good & ~blank, column, "is not a tier (0, 1, 2, ...)", "correct it or leave it empty"
    )
    return tier, [fault]


def parse_flag(text: pd.Series, column: str) -> tuple[Mask, list[Fault]]:
    """true/false or 1/0 of a text column; empty is false."""
    flags = text.str.strip().str.lower().map(_FLAGS)
    fault = Fault("bad_flag", flags.isna().to_numpy(dtype=np.bool_), column, "is neither true nor false")
    return (flags == True).to_numpy(dtype=np.bool_), [fault]  # noqa: E712 - NaN counts as false here


def _unreadable(text: pd.Series, numbers: NDArray[np.float64]) -> tuple[Mask, Mask]:
    """Masks of cells that are empty (or say so: nan, null, NA) and of those that are no numbers."""
    unknown = np.isnan(numbers)
    blank = np.zeros(len(text), dtype=np.bool_)
    if unknown.any():
        blank = text.str.strip().str.lower().isin(_MISSING).to_numpy(dtype=np.bool_) & unknown
    return blank, unknown & ~blank
