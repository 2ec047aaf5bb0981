"""Mappings to frozen dataclasses and back, strictly: unknown keys and wrong types are errors with a remedy."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any, TypeVar

from llmsim.errors import ConfigError, did_you_mean

T = TypeVar("T")

WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "None": "null"}
"""Plain types, as one who writes YAML calls them."""


def load(cls: type[T], mapping: object, where: str, at: str = "") -> T:
    """An instance of dataclass `cls`; `where` (a file) and `at` (a key) name the place in errors."""
    if not isinstance(mapping, dict):
        raise ConfigError(f"{where}: {at or 'the run'} must be a mapping but got {mapping!r:.200}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in mapping.items():
        if key not in fields:
            hint = did_you_mean(str(key)[:200], fields)
            raise ConfigError(f"{where}: [{at or 'run'}] has no option {key!r:.200}.{hint}")
        values[key] = _convert(hints[key], value, where, f"{at}.{key}" if at else str(key))
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: [{at or 'run'}] needs {missing[0]!r}")
    try:
        return cls(**values)
    except ConfigError as error:
        # What begins with an option of this mapping gets its path.
        first = re.match(r"\w*", str(error))
        path = f"{at}." if at and first is not None and first[0] in fields else ""
        raise ConfigError(f"{where}: {path}{error}") from error


def dump(spec: Any) -> Any:
    """Plain mappings, lists and scalars of a spec; options at None are left out."""
    if dataclasses.is_dataclass(spec) and not isinstance(spec, type):
        items = ((f.name, getattr(spec, f.name)) for f in dataclasses.fields(spec) if f.init)
        return {name: dump(value) for name, value in items if value is not None}
    if isinstance(spec, tuple | list):
        return [dump(value) for value in spec]
    if isinstance(spec, dict):
        return {key: dump(value) for key, value in spec.items()}
    return spec


def _convert(hint: Any, value: Any, where: str, at: str) -> Any:
    """The value as the annotation wants it: dataclasses are loaded, lists become tuples, ints floats."""
    if hint is Any:
        return value
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return load(typing.cast("type[Any]", option), value, where, at)
        if origin is tuple and isinstance(value, list | tuple):
            kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
            if len(kinds) == len(value):
                items = enumerate(zip(kinds, value, strict=True))
                return tuple(_convert(kind, item, where, f"{at}.{i}") for i, (kind, item) in items)
        if origin is dict and isinstance(value, dict):
            return {key: _convert(inner[1], item, where, f"{at}.{key}") for key, item in value.items()}
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option is float and isinstance(value, str) and _is_number(value):
            return float(value)  # YAML 1.1 reads 1e-3 as text
        if isinstance(option, type) and type(value) is option:
            return value
    wanted = " or ".join(dict.fromkeys(_in_words(option) for option in options))
    raise ConfigError(f"{where}: {at} must be {wanted} but got {value!r:.200}")


def _in_words(option: Any) -> str:
    """What a value of this type is called in YAML."""
    origin, inner = typing.get_origin(option), typing.get_args(option)
    if origin in (tuple, list):
        return "a list" if origin is list or inner[-1] is Ellipsis else f"a list of {len(inner)}"
    if origin is dict or option is dict or dataclasses.is_dataclass(option):
        return "a mapping"
    name = "None" if option is type(None) else getattr(option, "__name__", str(option))
    return WORDS.get(name, name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
