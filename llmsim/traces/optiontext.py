"""Options written as NAME=VALUE,NAME=VALUE on a command line, and the specification that they make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar

from llmsim.errors import ConfigError, did_you_mean

T = TypeVar("T")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}


def build(spec: type[T], values: dict[str, Any], rest: str, text: str) -> T:
    """`spec` of `values` and of the options in `rest` (empty: none); `text` is the whole, for errors.

    ConfigError for an option it does not have.
    """
    values = values | pairs(rest.split(",") if rest else [], text)
    known = [field.name for field in fields(spec)]  # type: ignore[arg-type]  # specifications are dataclasses
    for name in values:
        if name not in known:
            raise ConfigError(f"{text!r} has an unknown option {name!r}.{did_you_mean(name, known)}")
    return spec(**values)


def pairs(items: Iterable[str], text: str) -> dict[str, Any]:
    """['a=1', 'b=x'] as {'a': 1, 'b': 'x'}; ConfigError for an item without '=', or a name given twice."""
    found: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"options are written NAME=VALUE but got {item!r} in {text!r}")
        if key.strip() in found:
            raise ConfigError(f"{text!r} gives {key.strip()} twice; give it once")
        found[key.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    """An int, float, bool or None if the text is one, else the text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    if ":" in text:
        return _points(text)
    return text


def _points(text: str) -> tuple[tuple[float, ...], ...]:
    """'0:1/60:5' as ((0, 1), (60, 5)); whether they make a ramp is for ArrivalsSpec to say."""
    try:
        return tuple(tuple(float(number) for number in point.split(":")) for point in text.split("/"))
    except ValueError:
        raise ConfigError(f"points are written SECONDS:RATE/SECONDS:RATE but got {text!r}") from None
