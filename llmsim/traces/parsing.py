"""Text cells to numbers: every cell that cannot be used becomes a fault with its reason, none is guessed.

Columns are cast as a whole; where that fails, cell by cell, with the same outcome for those that can be read. A fault
marks rows; whether they stop the reading or are left out is decided in `readers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Text: TypeAlias = "pa.StringArray"
"""A column of cells; none is null."""

NS_PER_UNIT = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_PLACES = {"s": 9, "ms": 6, "us": 3, "ns": 0}
"""Decimal places of a unit that a nanosecond clock can hold."""
UNIX_TIME_NS = 10**9 * 10**9
"""Numeric times from here on (Unix time of 9 September 2001) are absolute, below since a start."""
_FLOAT_NS = 2**52
_WHOLE = 2.0**53
"""Above it a float is no longer exact, and no prompt is that long."""
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


def numbers(text: Text) -> Floats:
    """The numbers of a column, NaN for a cell that holds none."""
    for empty in (False, True):
        try:
            cells = pc.if_else(pc.equal(text, ""), None, text) if empty else text
            found: Floats = pc.cast(cells, pa.float64()).to_numpy(zero_copy_only=False)
            return found
        except pa.ArrowInvalid:
            continue
    return pd.to_numeric(_cells(text), errors="coerce").to_numpy(dtype=np.float64)


def _whole_numbers(text: Text) -> Ints | None:
    """The numbers of a column, None if one of its cells needs a closer look."""
    data = text.buffers()[2].to_pybytes() if len(text) else b"x"
    if b"x" in data or b"X" in data:  # Arrow takes hexadecimal numbers, and nobody else does
        return None
    try:
        values: Ints = pc.cast(text, pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return values if max(values.max(), -values.min()) < _WHOLE else None


def _cells(text: Text) -> pd.Series:
    """A column as Python's texts, for what reads cell by cell."""
    return pd.Series(text.to_pylist(), dtype=str)


def words(text: Text) -> pd.Series:
    """The cells of a column without the blanks around them."""
    return pd.Series(pc.utf8_trim_whitespace(text).to_pandas(), dtype=str)


def parse_count(text: Text, column: str) -> tuple[Ints, list[Fault]]:
    """Token counts (at least 1) of a text column; 0 where a fault is reported."""
    values = _whole_numbers(text)
    if values is not None:
        whole = np.ones(len(values), dtype=np.bool_)
        blank = unreadable = ~whole
    else:
        found = numbers(text)
        blank, unreadable = _unreadable(text, found)
        whole = np.isfinite(found) & (found == np.floor(found)) & (np.abs(found) < _WHOLE)
        values = np.where(whole, found, 0).astype(np.int64)
    return values, [
        Fault("missing_value", blank, column, "is empty; a whole number of tokens >= 1 is needed"),
        Fault("not_a_number", unreadable, column, "is not a number; a whole number of tokens >= 1 is needed"),
        Fault("not_an_integer", ~whole & ~blank & ~unreadable, column, "is not a whole number of tokens >= 1"),
        Fault("not_positive", whole & (values < 1), column, "is not positive; a request has at least 1 token of each"),
    ]


def needs_digits(time_ns: Ints) -> bool:
    """Whether one of these times is so late that a float no longer tells single nanoseconds (52 days)."""
    return bool((time_ns >= _FLOAT_NS).any())


def parse_time(text: Text, column: str, unit: str, exact: bool = False) -> tuple[Ints, list[Fault]]:
    """Times in ns of a text column in `unit` (s, ms, us, ns since start or Unix epoch, or 'datetime').

    Date-times are ns since 1970 UTC, exact to the ns (Azure writes 100 ns digits); without a zone they are
    UTC. Plain decimals are read digit by digit if one of the column `needs_digits`, or if `exact` says so.
    """
    if unit == "datetime":
        return _parse_datetime(text, column)
    found = numbers(text)
    blank, unreadable = _unreadable(text, found)
    scaled = found * NS_PER_UNIT[unit]
    good = np.isfinite(scaled) & (scaled >= 0) & (scaled < 2.0**63)
    values: Ints = np.rint(np.where(good, scaled, 0)).astype(np.int64)
    if exact or needs_digits(values):
        values = _exact_decimals(text, _PLACES[unit], values, good)
    needs = f"a time in {unit} >= 0 is needed"
    remedy = "correct the row; if the column holds date-times, give time_unit='datetime' (--time-unit datetime)"
    return values, [
        Fault("missing_value", blank, column, f"is empty; {needs}"),
        Fault("bad_time", unreadable, column, f"is not a number; {needs}", remedy),
        Fault("bad_time", ~good & ~blank & ~unreadable, column, f"is not a time; {needs}", _in_finer(unit)),
    ]


def _in_finer(unit: str) -> str:
    """The remedy for a number that is negative, or more than the clock holds in this unit."""
    finer = {"s": "ms", "ms": "us", "us": "ns"}.get(unit)
    hint = f"; if the column counts {finer}, give time_unit='{finer}' (--time-unit {finer})"
    return "correct the row" + (hint if finer else "")


def _parse_datetime(text: Text, column: str) -> tuple[Ints, list[Fault]]:
    """ns since 1970 UTC of ISO 8601 date-times with any number of fraction digits and an optional zone."""
    values, blank, bad = _datetimes(text)
    remedy = "correct the row; if the column holds numbers, give their unit with time_unit='s' (--time-unit s)"
    complaint = "is not a date-time such as 2023-11-16 18:17:03.9799600"
    return values, [
        Fault("missing_value", blank, column, "is empty; a date-time is needed"),
        Fault("bad_time", bad, column, complaint, remedy),
    ]


def _datetimes(text: Text) -> tuple[Ints, Mask, Mask]:
    """ns since 1970 UTC, and masks of cells that are empty and of those that are no date-times."""
    none = np.zeros(len(text), dtype=np.bool_)
    try:
        # Without zones, with at most nine digits of a fraction.
        plain: Ints = pc.cast(pc.cast(text, pa.timestamp("ns")), pa.int64()).to_numpy()
        if len(plain) and plain.min() >= 0:
            return plain, none, none
    except pa.ArrowInvalid:
        pass
    cells = _cells(text)
    times = pd.to_datetime(cells, format="ISO8601", utc=True, errors="coerce")
    blank = cells.str.strip().str.lower().isin(_MISSING).to_numpy(dtype=np.bool_)
    bad = times.isna().to_numpy(dtype=np.bool_) & ~blank
    # '5' would pass for the year 5 in some readers: plain numbers are never date-times.
    bad |= ~np.isnan(numbers(text)) & ~blank
    # An int64 of ns ends in 2262.
    bad |= (~times.dt.year.between(1970, 2261)).to_numpy(dtype=np.bool_) & ~blank
    usable = times.where(~(bad | blank), pd.Timestamp(0, tz="UTC"))
    return np.asarray(usable.dt.as_unit("ns").astype("int64"), dtype=np.int64), blank, bad


def _exact_decimals(text: Text, places: int, values: Ints, good: Mask) -> Ints:
    """`values` with plain decimal numbers read digit by digit, where a float would round nanoseconds."""
    trimmed = pc.utf8_trim_whitespace(text)
    plain = pc.match_substring_regex(trimmed, r"^\d{1,19}(\.\d*)?$").to_numpy(zero_copy_only=False) & good
    parts = pc.extract_regex(pc.filter(trimmed, pa.array(plain)), r"^(?P<whole>\d+)(?:\.(?P<part>\d*))?$")
    whole = pc.cast(pc.struct_field(parts, "whole"), pa.int64()).to_numpy()
    exact: Ints = whole * 10**places
    if places:
        part = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.struct_field(parts, "part"), places, "0"), 0, places)
        exact = exact + pc.cast(part, pa.int64()).to_numpy()
    values = values.copy()
    values[plain] = exact
    return values


def parse_seconds(text: Text, column: str) -> tuple[Floats, list[Fault]]:
    """Optional positive seconds; NaN where the cell is empty."""
    found = numbers(text)
    _, unreadable = _unreadable(text, found)
    bad = unreadable | (found <= 0) | np.isinf(found)
    return found, [Fault("bad_target", bad, column, "is not a number of seconds > 0", "correct it or leave it empty")]


def parse_tier(text: Text, column: str) -> tuple[pd.Series, list[Fault]]:
    """Optional tier (whole number >= 0) as Int64; <NA> where the cell is empty."""
    found = numbers(text)
    blank, _ = _unreadable(text, found)
    whole = np.isfinite(found) & (found >= 0) & (found == np.floor(found))
    good = whole & (found < _WHOLE)
    tier = pd.Series(pd.arrays.IntegerArray(np.where(good, found, 0).astype(np.int64), ~good))
    remedy = "correct it or leave it empty"
    return tier, [
        Fault("bad_tier", ~whole & ~blank, column, "is not a tier (0, 1, 2, ...)", remedy),
        Fault("bad_tier", whole & ~good, column, "is out of the range of tiers (0 to 2**53 - 1)", remedy),
    ]


def parse_flag(text: Text, column: str) -> tuple[Mask, list[Fault]]:
    """true/false or 1/0 of a text column; empty is false."""
    flags = words(text).str.lower().map(_FLAGS)
    fault = Fault("bad_flag", flags.isna().to_numpy(dtype=np.bool_), column, "is neither true nor false")
    return (flags == True).to_numpy(dtype=np.bool_), [fault]  # noqa: E712 - NaN counts as false here


def _unreadable(text: Text, found: Floats) -> tuple[Mask, Mask]:
    """Masks of cells that are empty (or say so: nan, null, NA) and of those that are no numbers."""
    unknown = np.isnan(found)
    blank = np.zeros(len(text), dtype=np.bool_)
    if unknown.any():
        blank[unknown] = words(text.filter(pa.array(unknown))).str.lower().isin(_MISSING)
    return blank, unknown & ~blank
