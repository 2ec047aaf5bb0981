"""Options in groups: a command with a dataclass among its parameters takes each of its fields as an option."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from llmsim.errors import ConfigError


@dataclass(frozen=True)
class Sets:
    """In an option's annotation: the key of the run's description that it sets, to what `read` makes of its value."""

    key: str
    read: Callable[[Any], object] = lambda value: value


@dataclass(frozen=True)
class Compares(Sets):
    """Of an option that may be repeated: each value is a run of its own, and sets the key in that run."""


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
    """Keys of the run's description that the options of a group set, and their values; None sets nothing."""
    for _, mark, value in _marked(group):
        if not isinstance(mark, Compares) and (read := mark.read(value)) is not None:
            yield mark.key, read


def comparisons(group: Any) -> Iterator[tuple[str, str, list[object]]]:
    """(option, key of the run's description, values to compare) of the options of a group that may be repeated.

    ConfigError for a value given twice.
    """
    for name, mark, values in _marked(group):
        if isinstance(mark, Compares):
            option = "--" + name.replace("_", "-")
            for value in values:
                if values.count(value) > 1:
                    raise ConfigError(f"{option} {value} is given twice; each value is a run of its own: give it once")
            yield option, mark.key, [mark.read(value) for value in values]


def _marked(group: Any) -> Iterator[tuple[str, Sets, Any]]:
    """Name, mark and value of each option given that says what it sets."""
    kinds = get_type_hints(type(group), include_extras=True)
    for field in fields(group):
        value = getattr(group, field.name)
        for mark in getattr(kinds[field.name], "__metadata__", ()):
            if isinstance(mark, Sets) and value is not None:
                yield field.name, mark, value


class Once:
    """A command, or group of commands, that refuses an option given twice unless it is a list: none is the last one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, after a look at what was given how often; a usage error for the first given twice."""
        parser: Any = self.make_parser(ctx)  # type: ignore[attr-defined]  # typer's class beside this one has it
        given = Counter(option for option in parser.parse_args(args=list(args))[2] if isinstance(option, TyperOption))
        for option, count in given.items():
            if count > 1 and not (option.multiple or option.count):
                ctx.fail(f"{option.opts[0]} is given {count} times but takes one value; give it once")
        parsed: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        return parsed


class OnceCommand(Once, TyperCommand):
    """A typer command that refuses repeated options."""


class OnceGroup(Once, TyperGroup):
    """A typer group of commands that refuses repeated options."""


def refuse_repeats(app: typer.Typer) -> None:
    """Make every command of `app`, and of the groups in it, refuse repeated options."""
    for command in app.registered_commands:
        command.cls = OnceCommand
    for group in app.registered_groups:
        held = group.typer_instance
        if held is not None:
            if not (isinstance(held.info.cls, type) and issubclass(held.info.cls, OnceGroup)):
                held.info.cls = OnceGroup
            refuse_repeats(held)
