"""Options in groups: a command with a dataclass among its parameters takes each of its fields as an option."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Sets:
    """In an option's annotation: the key of the run's description that it sets, to what `read` makes of its value."""

    key: str
    read: Callable[[Any], object] = lambda value: value


def expand_groups(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Show typer the fields of a command's dataclasses in their place; the command itself is given the dataclasses.

    A field keeps its default, and is no option, if `without` names it or if the command has a parameter of that name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        groups: dict[str, Any] = {
            name: parameter.annotation for name, parameter in own.items() if is_dataclass(parameter.annotation)
        }
        taken = {
            name: [option for option in _options(group) if option.name not in {*own, *without}]
            for name, group in groups.items()
        }
        shown = [option for name, plain in own.items() for option in taken.get(name, [plain])]

        @wraps(command)
        def expanded(**given: Any) -> None:
            for name, group in groups.items():
                given[name] = group(**{option.name: given.pop(option.name) for option in taken[name]})
            command(**given)

        signature = inspect.Signature([option.replace(kind=Parameter.KEYWORD_ONLY) for option in shown])
        expanded.__signature__ = signature  # type: ignore[attr-defined]  # it is what typer reads
        return expanded

    return decorate


def _options(group: Any) -> list[Parameter]:
    kinds = get_type_hints(group, include_extras=True)
    return [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=kinds[field.name])
        for field in fields(group)
    ]


def settings(group: Any) -> Iterator[tuple[str, object]]:
    """Keys of the run's description, and their values, that the options of a group set; None was not given."""
    kinds = get_type_hints(type(group), include_extras=True)
    for field in fields(group):
        value = getattr(group, field.name)
        for mark in getattr(kinds[field.name], "__metadata__", ()):
            if isinstance(mark, Sets) and value is not None:
                yield mark.key, mark.read(value)
