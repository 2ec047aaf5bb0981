"""Specifications written as one word on a command line: 'lognormal,mean=1000,std=500'."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar

from llmsim.errors import ConfigError, did_you_mean
from llmsim.traces.arrivals import ArrivalsSpec
from llmsim.traces.lengths import DistributionSpec
from llmsim.traces.spec import ClassSpec

T = TypeVar("T", DistributionSpec, ClassSpec, ArrivalsSpec)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}


def distribution(text: str) -> DistributionSpec:
    """'KIND,option=value,...' as a length distribution, e.g. 'fixed,value=512'."""
    kind, _, rest = text.partition(",")
    return _build(DistributionSpec, {"kind": kind, **pairs(rest.split(",") if rest else [], text)}, text)


def service_class(text: str) -> ClassSpec:
    """'name=paying,share=0.05,tbt_s=0.1,priority=true' as a service class."""
    return _build(ClassSpec, pairs(text.split(","), text), text)


def arrivals(text: str | None, rate: float | None) -> ArrivalsSpec:
    """'KIND,option=value,...' as an arrival process; a rate alone is Poisson, nothing at all is the trace's
    own.

    A ramp is written ramp,ramp=SECONDS:RATE/SECONDS:RATE. ConfigError for both a text and a rate, or a closed
    loop, which has no arrival times to write down.
    """
    if text is None:
        return ArrivalsSpec() if rate is None else ArrivalsSpec(kind="poisson", rate=rate)
    if rate is not None:
        raise ConfigError(f"give the rate inside --arrivals ({text},rate={rate:g}) or alone, not both")
    kind, _, rest = text.partition(",")
    values = {"kind": kind, **pairs(rest.split(",") if rest else [], text)}
    if kind == "closed_loop":
        raise ConfigError(
            "a closed loop submits a request when another finishes, so no file can hold its times; use it "
            "in a run"
        )
    return _build(ArrivalsSpec, values, text)


def pairs(items: Iterable[str], text: str) -> dict[str, Any]:
    """['a=1', 'b=x'] as {'a': 1, 'b': 'x'}; ConfigError for an item without '='."""
    found = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"options are written NAME=VALUE but got {item!r} in {text!r}")
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


def _build(spec: type[T], values: dict[str, Any], text: str) -> T:
    """The specification; ConfigError names an option it does not have."""
    known = [field.name for field in fields(spec)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{text!r} has an unknown option {name!r}.{did_you_mean(name, known)}")
    return spec(**values)
