"""Whether a name is another one misspelt: for hooks that nobody would call."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

ALIKE = 0.85
"""Share of letters that two names have in common, in order (difflib's ratio). One slip in a hook of this project leaves
0.86 (`answer` for `answered`) to 0.97; different words stay below: `finish_time` and `finished` 0.78, `route_table` and
`route` 0.67, `plan` and any 0.4. Names that begin with other letters are other words (`reschedule`, `unfinished`)."""
ALIKE_CALLED = 0.8
"""The same for methods that take as many arguments as the hook, whatever the first letter (`resise`)."""
SHORT = 4
"""Letters up to which one slip makes another word (bind, bid, bin): only a letter too many or two swapped count, and a
letter that is missing if the arguments are as many."""


def looks_like(name: str, known: Mapping[str, bool]) -> str | None:
    """The known name that `name` is likely to stand for, None if it is a name of its own.

    `known` says of each whether it takes as many arguments. Case and underscores do not count, nor the order of words,
    nor an `on_` before them.
    """
    best, score = None, 0.0
    for other, called in known.items():
        alike = _alike(name, other, called)
        if alike > score:
            best, score = other, alike
    return best


def _alike(name: str, other: str, called: bool) -> float:
    """1 for the same words, else the ratio if it is high enough, else 0."""
    words, others = _words(name), _words(other)
    one, two = "".join(words), "".join(others)
    if sorted(words) == sorted(others) or one == two:
        return 1.0
    if words[:1] == ["on"] and len(words) > 1:
        return _alike("_".join(words[1:]), other, called)
    if not one or (one[0] != two[0] and not (called and len(two) > SHORT)):
        return 0.0
    if one in _swapped(two):
        return 0.99
    if len(two) <= SHORT:
        return 0.9 if two in _one_less(one) or (called and one in _one_less(two)) else 0.0
    ratio = difflib.SequenceMatcher(None, one, two, autojunk=False).ratio()
    return ratio if ratio >= (ALIKE_CALLED if called else ALIKE) else 0.0


def _words(name: str) -> list[str]:
    """order_waiting and orderWaiting: order, waiting."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]


def _swapped(word: str) -> set[str]:
    """The word with two neighbouring letters changed over."""
    return {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)}


def _one_less(word: str) -> set[str]:
    return {word[:i] + word[i + 1 :] for i in range(len(word))}
