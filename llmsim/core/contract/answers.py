"""What a user's policy answers, held against what its hook is to answer, at every call.

The annotation of the hook in this package says what that is: None, an int, a bool, a Batch. Built-in policies run as
they are; those hooks of a user's policy whose answer could be wrong are wrapped in one of the functions below.
"""

from __future__ import annotations

import dis
import functools
import inspect
import reprlib
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, NoReturn

from llmsim.core.batch import Batch
from llmsim.errors import SchedulerError, place

Function = Callable[..., Any]
EXPECTED = {
    "int": "a whole number",
    "int | None": "a whole number or None",
    "bool": "True or False",
    "Batch": "a Batch",
    "route": "an index",
    "steady_iterations": "a whole number of at least 1",
}
"""What an answer is to be, by annotation or by hook."""
REMEDY = {
    "schedule": "; end it with `return batch`, a Batch(now) with nothing in it if nothing can run",
    "route": "; answer with an index, as `view.index`, or what self.least(loads) gives",
    "order_waiting": "; reorder self.waiting itself, as in self.waiting = deque(sorted(self.waiting, key=...))",
}


def users_classes(cls: type) -> list[type]:
    """Of a class and its bases those that neither this package nor Python brought, the class itself first."""
    ours = {"llmsim", *sys.stdlib_module_names} - {"__main__"}
    return [each for each in cls.__mro__ if each.__module__.partition(".")[0] not in ours]


def checked(policy: type, name: str, value: Any, hook: Any) -> Any:
    """What a user's class has as `name`, with its answers checked; as it is if there is nothing to check."""
    if isinstance(value, property) and isinstance(hook, property) and value.fget is not None and hook.fget is not None:
        get = _wrap(policy, name, value.fget, hook.fget)
        return value if get is value.fget else property(get, value.fset, value.fdel, value.__doc__)
    if isinstance(value, FunctionType) and isinstance(hook, FunctionType):
        return _wrap(policy, name, value, hook)
    return value


def _wrap(policy: type, name: str, function: Function, hook: Function) -> Function:
    kind = inspect.unwrap(hook).__annotations__.get("return")
    make = _route if name == "route" else MAKERS.get(kind)
    done = name in CHECKED_BY_THE_LOOP or hasattr(function, "_answers_checked")
    if make is None or done or (name in OFTEN and not _returns(function, nothing=True)):
        return function
    if kind == "None" and not _returns(function, nothing=False):
        return function
    wrapped = functools.wraps(function)(make(function, functools.partial(refuse, policy, name, kind=kind)))
    wrapped._answers_checked = True  # type: ignore[attr-defined]  # dataclass(slots=True) makes a class twice
    return wrapped


CHECKED_BY_THE_LOOP = ("schedule", "steady_iterations")
"""Asked at every iteration: a test in the loop costs a tenth of a call (Replica)."""
OFTEN = ("heeds_arrivals", "resident", "queued")
"""Nearly as often: these are wrapped only if they may answer None."""


def _returns(function: Function, *, nothing: bool) -> bool:
    """Whether a function has a `return` of a None that is written there (or of its end), or of anything else."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return True
    before: Any = True  # not None
    for step in dis.get_instructions(code):
        if step.opname == "RETURN_CONST":
            before = step.argval
        if step.opname in ("RETURN_CONST", "RETURN_VALUE") and (before is None) == nothing:
            return True
        before = step.argval if step.opname == "LOAD_CONST" else True
    return False


Refuse = Callable[..., NoReturn]
"""Raises SchedulerError for an answer, and why if it is not its type."""


def _nothing(function: Function, refuse: Refuse) -> Function:
    def hook(*given: Any, **named: Any) -> None:
        answer = function(*given, **named)
        if answer is not None:
            refuse(answer)

    return hook


def _whole(function: Function, refuse: Refuse, or_none: bool = False) -> Function:
    def hook(*given: Any, **named: Any) -> Any:
        answer = function(*given, **named)
        if answer.__class__ is int or (or_none and answer is None):
            return answer
        return _index(answer, refuse)

    return hook


def _boolean(function: Function, refuse: Refuse) -> Function:
    def hook(*given: Any, **named: Any) -> bool:
        answer = function(*given, **named)
        if answer.__class__ is bool:
            return answer
        if type(answer).__name__ not in ("bool", "bool_"):  # numpy's own
            refuse(answer)
        return bool(answer)

    return hook


def _route(function: Function, refuse: Refuse) -> Function:
    called = inspect.signature(function)

    def route(*given: Any, **named: Any) -> int:
        answer = function(*given, **named)
        if answer.__class__ is not int:
            answer = _index(answer, refuse)
        replicas = given[2] if len(given) > 2 else [*called.bind(*given, **named).arguments.values()][2]
        if not 0 <= answer < len(replicas):
            refuse(answer, f"but there is no replica {answer}: they are 0 to {len(replicas) - 1}")
        return answer

    return route


MAKERS: dict[Any, Callable[[Function, Refuse], Function]] = {
    "None": _nothing,
    "int": _whole,
    "int | None": functools.partial(_whole, or_none=True),
    "bool": _boolean,
}
"""By the annotation of a hook's answer."""


def _index(answer: Any, refuse: Refuse) -> int:
    """An int of numpy's as one of Python's."""
    if isinstance(answer, bool) or type(answer).__name__ in ("bool", "bool_") or not hasattr(answer, "__index__"):
        refuse(answer)
    return int(answer)


def batch_of(scheduler: object, answer: object) -> Batch:
    """What `schedule` answered; SchedulerError if it is no batch."""
    if not isinstance(answer, Batch):
        refuse(type(scheduler), "schedule", answer, kind="Batch")
    return answer


def repetitions_of(scheduler: object, answer: Any) -> int:
    """What `steady_iterations` answered as an int; SchedulerError if it is no whole number of at least 1."""
    no = functools.partial(refuse, type(scheduler), "steady_iterations", kind="int")
    count = _index(answer, no)
    return count if count >= 1 else no(answer)


def alarm_of(scheduler: Any, now: int) -> int | None:
    """When the policy wants to be asked again; SchedulerError if that is not later than `now` (ns)."""
    at: int | None = scheduler.wake_at(now)
    if at is not None and at <= now:
        refuse(type(scheduler), "wake_at", at, f"but it is {now} ns already; answer later, or None", kind="int")
    return at


def refuse(policy: type, name: str, answer: object, why: str = "", *, kind: str) -> NoReturn:
    """Raise SchedulerError for an answer of the policy's hook `name`, annotated `kind`; `why` if it is not its type."""
    code = getattr(inspect.unwrap(_function(getattr(policy, name))), "__code__", None)
    at = f"{place(code.co_filename, code.co_firstlineno)}: " if code is not None else ""
    wanted = "but its answer is not used" if kind == "None" else f"not {EXPECTED.get(name) or EXPECTED[kind]}"
    plain = isinstance(answer, int | float | str | bool | None)
    shown = reprlib.repr(answer) if plain else f"a {type(answer).__name__}"
    raise SchedulerError(f"{at}{policy.__name__}.{name} returned {shown}, {why or wanted + REMEDY.get(name, '')}")


def _function(value: Any) -> Any:
    return value.fget if isinstance(value, property) else value
