"""What llmsim raises.

::

    LlmsimError
     +-- ConfigError          a run description, option or name that cannot be used
     +-- TraceError           a workload file or row that cannot be used
     +-- CalibrationError     a calibration that cannot be read, or is asked outside what it was measured on
     +-- CapacityError        a request or model that cannot fit the memory it is given
     +-- SchedulerError       a policy broke a rule of the engine (over-commit, a batch it may not form)
     +-- StalledError         requests are left that no further event could serve

Messages say what is wrong, what was given, what is allowed, and what to do next.
"""

from __future__ import annotations

import difflib
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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest known word, else the sorted list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(known)}." if known else ""
