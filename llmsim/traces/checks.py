"""Small checks that the workload specifications share; each raises ConfigError with what, got and allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmsim.errors import ConfigError, did_you_mean


def one_of(what: str, got: object, allowed: Sequence[str]) -> None:
    """`got` must be one of the allowed words."""
    if got not in allowed:
        hint = did_you_mean(got, allowed) if isinstance(got, str) else ""
        raise ConfigError(f"{what} must be one of {', '.join(allowed)} but got {got!r}.{hint}")


def number(
    what: str,
    got: float | None,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    infinite: bool = False,
) -> None:
    """`got` must be None or a number in the range, finite unless `infinite`."""
    if got is None:
        return
    allowed = _range(above, least, most) + (", .inf allowed" if infinite else "")
    if isinstance(got, bool) or not isinstance(got, (int, float)):
        raise ConfigError(f"{what} must be a number{allowed} but got {got!r}")
    out = math.isnan(got) or (math.isinf(got) and not infinite)
    out = out or (above is not None and got <= above) or (least is not None and got < least)
    if out or (most is not None and got > most):
        raise ConfigError(f"{what} must be a number{allowed} but got {got!r}")


def whole(what: str, got: int | None, least: int) -> None:
    """`got` must be None or an int of at least `least`."""
    if got is not None and (isinstance(got, bool) or not isinstance(got, int) or got < least):
        raise ConfigError(f"{what} must be a whole number >= {least} but got {got!r}")


def needs(
    what: str, values: dict[str, object], required: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """`values` (None = not given) must hold every required name and nothing beyond the optional ones."""
    for name in required:
        if values[name] is None:
            raise ConfigError(f"{what} needs {name!r}, which is not given; set it")
    for name, value in values.items():
        if value is not None and name not in required and name not in optional:
            used = ", ".join((*required, *optional)) or "no option"
            raise ConfigError(
                f"{what} has no use for {name!r} (got {value!r}); it uses {used}: remove it or change the "
                "kind"
            )


def _range(above: float | None, least: float | None, most: float | None) -> str:
    """Text of a range, '' for all numbers."""
    parts = [f"> {above:g}"] if above is not None else []
    parts += [f">= {least:g}"] if least is not None else []
    parts += [f"<= {most:g}"] if most is not None else []
    return " " + " and ".join(parts) if parts else ""
