"""The oracle rule in a plain run: how long an output will be is for the simulator's core, not for a policy.

While a policy of a user's may see a request, the request is a GuardedRequest. Only the names that tell the length are
guarded, and the loop itself reads none of them, so that this costs next to nothing; built-in policies, which the tests
hold to the rule, are served plain requests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from llmsim.core.request import Request
from llmsim.errors import SchedulerError, place

TRUSTED = (
    "llmsim.engine.cluster",
    "llmsim.engine.feasibility",
    "llmsim.engine.length_limit",
    "llmsim.engine.replica",
    "llmsim.testing.conformance",
)
"""Modules that may read how long an output will be: they play the world, not the policy."""
LOOKERS_ON = ("llmsim.engine.recorder", "llmsim.runs.", "llmsim.metrics.", "llmsim.exports.")
"""What these do, or have done by an observer, decides nothing."""


class GuardedRequest(Request):
    """A request whose output length only the simulator may read; else the same object at the same speed."""

    __slots__ = ()

    @property
    def output_tokens(self) -> int:
        """The oracle: SchedulerError for a policy that reads it."""
        _refuse_policies("output_tokens")
        return _output_tokens(self)

    @output_tokens.setter
    def output_tokens(self, _: int) -> None:
        _refuse_policies("output_tokens")

    @property
    def output_target(self) -> int:
        """As `output_tokens`: where the request ends (`_output_target`) tells its length, too."""
        _refuse_policies("output_target")
        return self._output_target


_output_tokens: Callable[[Request], int] = vars(Request)["output_tokens"].__get__


def _refuse_policies(name: str) -> None:
    """SchedulerError if what reads was called by the loop to decide something."""
    reader = frame = sys._getframe(2)
    if frame.f_globals.get("__name__") in TRUSTED:
        return
    while frame.f_back is not None:
        frame = frame.f_back
        module = frame.f_globals.get("__name__", "")
        if module.startswith(LOOKERS_ON):
            return
        if module.startswith("llmsim.engine."):
            code = reader.f_code
            raise SchedulerError(
                f"{place(code.co_filename, reader.f_lineno)}: {code.co_qualname} reads request.{name}: a policy may "
                "not know the output length before it is over; it may use request.generated (so far), and a router "
                "learns of lengths in answered(request)"
            )
