"""Specifications written as one word on a command line: 'gamma,rate=5,burstiness=0.5'."""

from __future__ import annotations

from llmsim.errors import ConfigError
from llmsim.traces.arrivals import ArrivalsSpec
from llmsim.traces.optiontext import build
from llmsim.traces.spec import ClassSpec


def service_class(text: str) -> ClassSpec:
    """'name=paying,share=0.05,tbt_s=0.1,priority=true' as a service class."""
    return build(ClassSpec, {}, text, text)


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
    if kind == "closed_loop":
        raise ConfigError(
            "a closed loop submits a request when another finishes, so no file can hold its times; use it "
            "in a run"
        )
    return build(ArrivalsSpec, {"kind": kind}, rest, text)
