"""The values of one varied field: a list as it stands, or a range {from, to, steps, scale, round_to}."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

from llmsim.errors import ConfigError, did_you_mean

RANGE_KEYS = ("from", "to", "steps", "scale", "round_to")
SCALES = ("linear", "log")
MOST_STEPS = 100_000
DIGITS = 12
"""Significant digits of a step: what a root leaves in the last places is no part of a value that people read."""


def values_of(given: object, at: str) -> list[Any]:
    """At least one value, all different, in the order given; `at` names file and field in errors.

    A range includes both ends. Its values are whole numbers if both ends and all steps are, else floats. ConfigError
    for anything else.
    """
    if isinstance(given, dict):
        given = _range(given, at)
    if not isinstance(given, list | tuple) or not given:
        raise ConfigError(
            f"{at} must be a list of values, or a range {{from, to, steps}}, but got {given!r}; a value that does not "
            "vary belongs in base"
        )
    seen: dict[str, Any] = {}
    for value in given:
        text = same(value, at)
        if text in seen:
            raise ConfigError(f"{at}: {value!r} is given twice; give each value once")
        seen[text] = value
    return list(given)


def same(value: object, at: str) -> str:
    """A text that equal values share: 1 and 1.0 are equal, true and 1 are not.

    ConfigError for what could not be written in a file, such as a policy object.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return json.dumps(value, sort_keys=True)
    except TypeError:
        raise ConfigError(
            f"{at}: {value!r} cannot be written down, so its points could not be told from others on disk; write the "
            "policy to a file and name it file.py:Class, or use llmsim.sweep.sweep, which keeps nothing"
        ) from None


def _range(given: dict[Any, Any], at: str) -> list[int | float]:
    for key in given:
        if key not in RANGE_KEYS:
            raise ConfigError(f"{at}: a range has no option {key!r}.{did_you_mean(str(key), RANGE_KEYS)}")
    for key in ("from", "to", "steps"):
        if key not in given:
            raise ConfigError(f"{at}: a range needs {key!r}; write {{from: 1, to: 4, steps: 7}}")
    low, high = _number(given["from"], f"{at}.from"), _number(given["to"], f"{at}.to")
    steps = given["steps"]
    if type(steps) is not int or not 2 <= steps <= MOST_STEPS:
        raise ConfigError(f"{at}.steps must be a whole number from 2 to {MOST_STEPS:,} but got {steps!r}")
    scale = given.get("scale", "linear")
    if scale not in SCALES:
        hint = did_you_mean(str(scale), SCALES)
        raise ConfigError(f"{at}.scale must be one of {', '.join(SCALES)} but got {scale!r}.{hint}")
    if scale == "log" and not (low > 0 and high > 0):
        raise ConfigError(f"{at}: a log scale needs ends above 0 but got {low:g} to {high:g}; use scale: linear")
    shares = [i / (steps - 1) for i in range(steps)]
    if scale == "log":
        inner = [low * (high / low) ** share for share in shares]
    else:
        inner = [low + (high - low) * share for share in shares]
    values = [float(low), *(float(f"{value:.{DIGITS}g}") for value in inner[1:-1]), float(high)]
    if given.get("round_to") is not None:
        return _rounded(values, given["round_to"], at)
    whole = type(low) is int and type(high) is int and all(value.is_integer() for value in values)
    return [int(value) for value in values] if whole else list(values)


def _rounded(values: list[float], to: object, at: str) -> list[int | float]:
    """Each value at the nearest multiple; ConfigError where two fall together."""
    unit = _number(to, f"{at}.round_to")
    if not unit > 0:
        raise ConfigError(f"{at}.round_to must be above 0 but got {to!r}")
    rounded = [float(f"{round(value / unit) * unit:.{DIGITS}g}") for value in values]
    if len(set(rounded)) < len(rounded):
        raise ConfigError(f"{at}: rounded to {unit:g}, two steps fall together; give fewer steps or a smaller round_to")
    return [int(value) for value in rounded] if type(unit) is int else list(rounded)


def _number(value: object, at: str) -> int | float:
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ConfigError(f"{at} must be a number but got {value!r}")
    return value  # type: ignore[return-value]
