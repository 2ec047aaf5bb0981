"""Strict reading of a JSON calibration: every key is asked for, every other key is an error.

An error names the file, the key, what was there and what is allowed.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, NoReturn

from llmsim.errors import CalibrationError, did_you_mean


def read_json_object(path: Path) -> Section:
    """The top-level object of a JSON file, as a Section."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path}: cannot be read ({error})") from error
    try:
        held = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except ValueError as error:
        raise CalibrationError(f"{path}: is not valid JSON ({error})") from error
    return Section(path, "", held)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of `pairs`; json itself would silently keep the last of two equal keys."""
    held = dict(pairs)
    if len(held) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice in one object")
    return held


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number in JSON")


class Section:
    """One JSON object being read: ask for its keys, then call `close`, which rejects the keys left over."""

    def __init__(self, path: Path, key: str, held: Any) -> None:
        self.path = path
        self.key = key
        if not isinstance(held, dict):
            self.fail("", f"must be an object but got {_short(held)}")
        self._held: dict[str, Any] = held
        self._asked: set[str] = set()

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise CalibrationError about key `name` of this object; '' is the object itself."""
        where = ".".join(part for part in (self.key, name) if part) or "the file's content"
        raise CalibrationError(f"{self.path}: {where} {problem}")

    def names(self) -> list[str]:
        """The keys of the object, in file order."""
        return list(self._held)

    def has(self, name: str) -> bool:
        """Whether the key is there and not null; asks for it."""
        self._asked.add(name)
        return self._held.get(name) is not None

    def section(self, name: str) -> Section:
        """A nested object."""
        return Section(self.path, ".".join(part for part in (self.key, name) if part), self._take(name))

    def sections(self, name: str) -> list[Section]:
        """A list of objects, at least one."""
        held = self._list(name)
        if not held:
            self.fail(name, "must not be an empty list")
        prefix = ".".join(part for part in (self.key, name) if part)
        return [Section(self.path, f"{prefix}[{index}]", item) for index, item in enumerate(held)]

    def text(self, name: str) -> str:
        """A string that is not blank."""
        held = self._take(name)
        if not isinstance(held, str) or not held.strip():
            self.fail(name, f"must be a text but got {_short(held)}")
        return held

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, possibly empty."""
        held = self._list(name)
        for item in held:
            if not isinstance(item, str):
                self.fail(name, f"must hold texts only but holds {_short(item)}")
        return tuple(held)

    def numbers(self, name: str) -> tuple[Any, ...]:
        """A list of numbers, or of lists of numbers of equal length; whole numbers stay ints."""
        held = self._list(name)
        rows = held if held and isinstance(held[0], list) else [held]
        for row in rows:
            if not isinstance(row, list) or len(row) != len(rows[0]):
                self.fail(name, "must be a list of numbers, or of lists of numbers of one length")
            for item in row:
                if not isinstance(item, (int, float)) or isinstance(item, bool) or not abs(item) <= sys.float_info.max:
                    self.fail(name, f"must hold finite numbers only but holds {_short(item)}")
        return tuple(tuple(row) for row in rows) if rows is held else tuple(held)

    def flag(self, name: str) -> bool:
        """true or false."""
        held = self._take(name)
        if not isinstance(held, bool):
            self.fail(name, f"must be true or false but got {_short(held)}")
        return held

    def number(self, name: str, *, minimum: float = -math.inf) -> float:
        """A finite number of at least `minimum`."""
        held = self._take(name)
        usable = isinstance(held, (int, float)) and not isinstance(held, bool)
        # Compared, not converted: JSON has ints that no float can hold.
        if not usable or not -sys.float_info.max <= held <= sys.float_info.max or held < minimum:
            bound = "" if minimum == -math.inf else f" of at least {minimum:g}"
            self.fail(name, f"must be a finite number{bound} but got {_short(held)}")
        return float(held)

    def whole(self, name: str, *, minimum: int = 0) -> int:
        """A whole number of at least `minimum`."""
        held = self._take(name)
        if not isinstance(held, int) or isinstance(held, bool) or held < minimum:
            self.fail(name, f"must be a whole number of at least {minimum} but got {_short(held)}")
        return held

    def close(self) -> None:
        """Reject the keys nobody asked for."""
        for name in self._held:
            if name not in self._asked:
                self.fail(name, f"is not a key of this object.{did_you_mean(name, self._asked)}")

    def _take(self, name: str) -> Any:
        self._asked.add(name)
        if name not in self._held:
            self.fail(name, f"is missing; the object has {', '.join(self._held) or 'no keys'}")
        return self._held[name]

    def _list(self, name: str) -> list[Any]:
        held = self._take(name)
        if not isinstance(held, list):
            self.fail(name, f"must be a list but got {_short(held)}")
        return held


def _short(value: Any) -> str:
    """`value` as JSON, cut to a length that fits a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
