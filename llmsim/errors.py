"""What llmsim raises.

::

    LlmsimError
     +-- ConfigError          a run description, option or name that cannot be used
     +-- TraceError           a workload file or row that cannot be used
     +-- CalibrationError     a calibration that cannot be read, or is asked outside what it was measured on
     +-- CapacityError        a request or model that cannot fit the memory it is given
     +-- SchedulerError       a policy broke a rule of the engine (over-commit, a batch it may not form)
     +-- StalledError         requests are left that no further event could serve
     +-- EndpointError        a server that cannot be reached, or refuses what is asked of it
     +-- SweepError           a sweep that stopped, or cannot be merged: points of it are missing

Messages say what is wrong, what was given, what is allowed, and what to do next.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class LlmsimError(Exception):
    """Base of every error that llmsim raises on purpose."""


class ConfigError(LlmsimError):
    """A run description, option or name that cannot be used."""


class TraceError(LlmsimError):
    """A workload file or row that cannot be used: names file, row, column, value and remedy."""


class CalibrationError(LlmsimError):
    """A calibration that cannot be read, or is asked for a batch outside what was measured."""


class CapacityError(LlmsimError):
    """A request or model that cannot fit the memory it is given."""


class SchedulerError(LlmsimError):
    """A policy broke a rule of the engine."""


class StalledError(LlmsimError):
    """Requests are left that no further event could serve."""

    @classmethod
    def livelock(cls, policy: object, preemptions: int, request: int, blocks: int) -> StalledError:
        """The policy preempts and preempts, last the request of that id, and nobody finishes."""
        return cls(
            f"{preemptions} preemptions without a request finishing, the last of request {request}: "
            f"{type(policy).__name__} goes round in circles on {blocks} KV blocks; raise engine.num_blocks, or admit "
            "fewer requests (max_num_seqs)"
        )


class EndpointError(LlmsimError):
    """A server that cannot be reached, or refuses what is asked of it."""


class SweepError(LlmsimError):
    """A sweep that stopped before its end, or cannot be merged; what is done is kept."""


PART = 2
"""A word of more letters is looked for inside the known ones."""
MOST_NAMES = 20
"""More than these do not help who mistyped one."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest known word, else those that contain it, else the sorted list of all.

    At most MOST_NAMES are named. Case and punctuation count last: `H100/Llama_3_1_8B` is near `h100/llama-3.1-8b`.
    """
    known = sorted(known)
    plain = {_plain(name): name for name in reversed(known)}
    near = _plain(word)
    close = [plain[near]] if near in plain else difflib.get_close_matches(word, known, n=1)
    close = close or [plain[name] for name in difflib.get_close_matches(near, plain, n=1)]
    if close:
        return f" Did you mean {close[0]!r}?"
    parts = [name for name in known if len(near) > PART and near in _plain(name)]
    if parts:
        return f" Did you mean one of {_few([repr(name) for name in parts])}?"
    return f" Known: {_few(known)}." if known else ""


def _few(names: list[str]) -> str:
    """The names, or the first and how many more there are."""
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def _plain(word: str) -> str:
    """Letters and digits, in lower case; a word of neither stays as it is."""
    return re.sub(r"[\W_]+", "", word.casefold()) or word
