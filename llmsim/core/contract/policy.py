"""Policy: what schedulers and routers have in common. Before the first object of a class is made, the class is judged.

A policy's author writes one class; a slip in it (a hook's name misspelt, an option that is none) would otherwise give a
run that looks fine and is another policy's. Each is one ConfigError that names file and line. Classes of this package
are not judged: their tests are.
"""

from __future__ import annotations

import inspect
import linecache
import re
import sys
import typing
from abc import ABC
from collections.abc import Mapping
from types import CodeType, FunctionType, MemberDescriptorType
from typing import Any, ClassVar, Self

from llmsim.core.contract.answers import checked, users_classes
from llmsim.core.contract.names import looks_like
from llmsim.errors import ConfigError, place

Hooks = Mapping[str, Any]
"""What a user's class may override: name to what the nearest class of this package has there."""


class Policy(ABC):  # noqa: B024  # the rungs on it have the abstract methods
    """Base of Scheduler and Router."""

    TO_CALL: ClassVar[tuple[str, ...]] = ()
    """Methods that a policy calls and has no reason to override: no other name is taken for theirs."""

    def __new__(cls, *given: Any, **options: Any) -> Self:
        """Judge the class once; ConfigError for what is wrong with it."""
        if "_judged" not in cls.__dict__:
            _judge(cls)
            cls._judged = True
        if (given or options) and cls.__init__ is object.__init__:  # Python would drop them
            first = next(iter(options), "")
            raise ConfigError(no_dataclass(cls, first) or f"{_where(cls)}: {cls.__name__} takes no options")
        return super().__new__(cls)

    _judged: ClassVar[bool] = False


def _judge(cls: type[Policy]) -> None:
    """Check every class that a user wrote among `cls` and its bases, then have its hooks' answers checked."""
    theirs = users_classes(cls)
    hooks = _hooks(cls)
    used = _names_used(theirs)
    for each in reversed(theirs):
        _check_options(each)
        for name, value in _written(each).items():
            if name in hooks:
                _check_override(each, name, value, hooks[name])
            else:
                _check_name(each, name, value, hooks, used)
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        takes = _parameters(getattr(cls, missing[0]))
        raise ConfigError(f"{_where(cls)}: {cls.__name__} has no {missing[0]}({takes}); every policy needs it")
    for each in theirs:
        for name in set(vars(each)) & set(hooks):
            setattr(each, name, checked(cls, name, vars(each)[name], hooks[name]))


def _hooks(cls: type[Policy]) -> dict[str, Any]:
    hooks: dict[str, Any] = {}
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == "llmsim" and base is not Policy:
            for name, value in vars(base).items():
                if not name.startswith("_") and name not in {"TO_CALL", *cls.TO_CALL}:
                    hooks.setdefault(name, value)
    return hooks


def _check_options(cls: type) -> None:
    """Options are annotated, in a class with @dataclass; anything else would never be read."""
    own = _annotations(cls)
    is_dataclass = "__dataclass_fields__" in vars(cls)
    if not is_dataclass and "__init__" not in vars(cls):
        for name, kind in own.items():
            constant = "ClassVar" in str(kind) or "Final" in str(kind) or name.isupper() or name.startswith("_")
            if name in vars(cls) and not constant:
                raise ConfigError(no_dataclass(cls, name))
    inherited: dict[str, Any] = {}
    for base in cls.__mro__[1:]:
        inherited = {**vars(base).get("__dataclass_fields__", {}), **inherited}
    for name in set(_written(cls)) & set(inherited) - set(own):
        if is_dataclass or "__init__" not in vars(cls):
            value = vars(cls)[name]
            raise ConfigError(
                f"{_where(cls, name)}: {cls.__name__}.{name} = {value!r} does not change the option {name}; write "
                f"{name}: {inherited[name].type} = {value!r} in a class with @dataclass"
            )


def no_dataclass(cls: type, name: str) -> str:
    """The error for what is annotated as an option and is none; empty if that is not the reason."""
    for each in users_classes(cls):
        if name in _annotations(each) and "__dataclass_fields__" not in vars(each):
            return (
                f"{_where(each, name)}: {name} is no option of {cls.__name__}, as class {each.__name__} lacks "
                "@dataclass; put @dataclass above it"
            )
    return ""


def _check_override(cls: type, name: str, value: Any, hook: Any) -> None:
    """A method stays a method that can be called as the hook is; a property may become a plain value."""
    what = f"{cls.__name__}.{name}"
    if isinstance(hook, FunctionType):
        method = getattr(cls, name)
        if not callable(method):
            shown = "a property" if isinstance(value, property) else repr(value)
            raise ConfigError(f"{_where(cls, name)}: {what} must be a method, as {name} is a hook, but is {shown}")
        code = getattr(inspect.unwrap(method), "__code__", None)
        if code is not None and code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
            raise ConfigError(f"{_where(cls, name)}: {what} must be a plain method, without yield and async")
        if not _takes(method, value, hook):
            raise ConfigError(
                f"{_where(cls, name)}: {what} takes ({_parameters(value)}) but is called with ({_parameters(hook)})"
            )
    elif isinstance(value, FunctionType):
        like = "is read without a call: put @property above it" if isinstance(hook, property) else "is a plain value"
        raise ConfigError(f"{_where(cls, name)}: {what} must be no method, as {name} {like}")
    elif isinstance(hook, bool) and not isinstance(value, bool | property):
        raise ConfigError(f"{_where(cls, name)}: {what} must be True or False but is {value!r}")


def _takes(method: Any, value: Any, hook: FunctionType) -> bool:
    """Whether the method can be called as the engine calls the hook: all by position."""
    bound = isinstance(value, staticmethod | classmethod) or not hasattr(value, "__get__")
    count = len(inspect.signature(hook).parameters) - bound
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # no signature to be had: written in C
        return True
    return True


def _check_name(cls: type, name: str, value: Any, hooks: Hooks, used: Mapping[str, int]) -> None:
    """Refuse what overrides nothing, is used by nothing in the policy, and has nearly the name of a hook."""
    if name.startswith("_"):
        if not (name.startswith("__") and name.endswith("__")) or hasattr(object, name) or hasattr(Policy, name):
            return
        near = looks_like(name, {"__post_init__": False})
    elif used.get(name) or isinstance(value, type):
        return
    else:
        near = looks_like(name, _comparable(value, hooks))
    if near is None or near == name:
        return
    hook = hooks.get(near)
    takes = f"({_parameters(hook)})" if isinstance(hook, FunctionType) else ""
    raise ConfigError(
        f"{_where(cls, name)}: {cls.__name__}.{name} overrides nothing, and nothing uses it. Did you mean "
        f"{near}{takes}? If not, use it in the policy, or call it _{name.strip('_')}"
    )


def _comparable(value: Any, hooks: Hooks) -> dict[str, bool]:
    """What such a thing could be meant to override, and whether it would be called with as many arguments."""
    is_method = isinstance(value, FunctionType)
    count = len(inspect.signature(value).parameters) if is_method else -1
    return {
        name: isinstance(hook, FunctionType) and len(inspect.signature(hook).parameters) == count
        for name, hook in hooks.items()
        if not (is_method and isinstance(hook, int | float | str) and not isinstance(hook, bool))
    }


def _written(cls: type) -> dict[str, Any]:
    """What the class's author wrote there: all but the places that @dataclass(slots=True) makes."""
    return {name: value for name, value in vars(cls).items() if not isinstance(value, MemberDescriptorType)}


def _names_used(classes: list[type]) -> dict[str, int]:
    """How many functions of these classes use each name: as an attribute, a global or a text."""
    count: dict[str, int] = {}
    for cls in classes:
        for own, value in vars(cls).items():
            names: set[str] = set()
            for code in _codes(value):
                names |= _names_in(code)
            for name in names - {own}:
                count[name] = count.get(name, 0) + 1
    return count


def _names_in(code: CodeType) -> set[str]:
    names = set(code.co_names) | {const for const in code.co_consts if isinstance(const, str)}
    for const in code.co_consts:
        if isinstance(const, CodeType):
            names |= _names_in(const)
    return names


def _codes(value: Any) -> list[CodeType]:
    """Code of a method or a property, but for what @dataclass wrote."""
    functions = [value.fget, value.fset] if isinstance(value, property) else [value]
    functions = [getattr(each, "__func__", each) for each in functions]
    codes = [getattr(inspect.unwrap(each), "__code__", None) for each in functions if callable(each)]
    return [code for code in codes if code is not None and code.co_filename != "<string>"]


def _annotations(cls: type) -> dict[str, Any]:
    try:
        return inspect.get_annotations(cls)
    except NameError:  # Python 3.14 reads them late; a name for the type checker alone
        return dict(typing.cast("Any", cls).__annotate__(4))  # annotationlib.Format.STRING


def _parameters(value: Any) -> str:
    try:
        called = inspect.signature(getattr(value, "__func__", value))
        plain = [parameter.replace(annotation=parameter.empty) for parameter in called.parameters.values()]
        return str(called.replace(parameters=plain, return_annotation=called.empty))[1:-1]
    except (TypeError, ValueError):
        return "..."


def _where(cls: type, name: str = "") -> str:
    """`file.py:12` of the class, or of what it has by that name; as much of it as can be found."""
    for code in _codes(vars(cls).get(name)):
        return place(code.co_filename, code.co_firstlineno)
    first = next((code for value in vars(cls).values() for code in _codes(value)), None)
    file = first.co_filename if first is not None else getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None:
        return cls.__module__
    linecache.checkcache(file)  # it may have been edited since the process began
    lines = linecache.getlines(file)
    head = re.compile(rf"\s*class {re.escape(cls.__name__)}\b")
    starts = [at for at, line in enumerate(lines, 1) if head.match(line)]
    starts = [at for at in starts if first is None or at <= first.co_firstlineno] or [1]
    own = re.compile(rf"\s+{re.escape(name)}\s*[:=]")
    found = [at for at, line in enumerate(lines[starts[-1] :], starts[-1] + 1) if own.match(line)] if name else []
    return place(file, (found or starts[-1:])[0])
