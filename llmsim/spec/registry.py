"""Names to classes: a built-in name, "module:Class", or "path/file.py:Class". Built-ins use the same resolver.

A policy in one line is `NAME[,option=value...]`, for instance `sarathi,chunk_size=256,order=spf`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from llmsim.core.contract.policy import no_dataclass
from llmsim.errors import ConfigError, did_you_mean, nearest, place
from llmsim.spec.strict import WORDS
from llmsim.spec.yaml_text import load_yaml

BUILT_IN: dict[str, dict[str, str]] = {
    "scheduler": {
        "dynamic": "llmsim.schedulers.dynamic:Dynamic",
        "faster_transformer": "llmsim.schedulers.faster_transformer:FasterTransformer",
        "hold_n": "llmsim.schedulers.hold_n:HoldN",
        "naive": "llmsim.schedulers.naive:Naive",
        "niyama": "llmsim.schedulers.niyama:Niyama",
        "orca": "llmsim.schedulers.orca:Orca",
        "rad": "llmsim.schedulers.rad:Rad",
        "sarathi": "llmsim.schedulers.sarathi:Sarathi",
        "simple_chunking": "llmsim.schedulers.simple_chunking:SimpleChunking",
        "slai": "llmsim.schedulers.slai:Slai",
        "vllm_v0": "llmsim.schedulers.vllm_v0:VllmV0",
        "vllm_v1": "llmsim.schedulers.vllm_v1:VllmV1",
    },
    "router": {
        "least_requests": "llmsim.routers.least_requests:LeastRequests",
        "least_tokens": "llmsim.routers.least_tokens:LeastTokens",
        "least_work": "llmsim.routers.least_work:LeastWork",
        "most_free_kv": "llmsim.routers.most_free_kv:MostFreeKv",
        "power_of_two": "llmsim.routers.power_of_two:PowerOfTwo",
        "random": "llmsim.routers.random:RandomRouter",
        "round_robin": "llmsim.routers.round_robin:RoundRobin",
    },
}
"""The one place where a built-in policy is registered."""

BASES = {"scheduler": "llmsim.schedulers.base:Scheduler", "router": "llmsim.routers.base:Router"}


def names(kind: str) -> list[str]:
    """Built-in names of this kind, sorted."""
    return sorted(BUILT_IN[kind])


def resolve(kind: str, name: str) -> type:
    """The class that `name` stands for. Raises ConfigError if there is none, or it is no `kind`."""
    target = BUILT_IN[kind].get(name, name)
    module_name, colon, class_name = target.rpartition(":")
    if not colon:
        raise ConfigError(
            f"unknown {kind} {name!r}.{did_you_mean(name, BUILT_IN[kind])} Your own: path/file.py:Class or module:Class"
        )
    module = _load_file(kind, Path(module_name)) if module_name.endswith(".py") else _load(kind, module_name)
    base = getattr(importlib.import_module(BASES[kind].partition(":")[0]), BASES[kind].partition(":")[2])
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, base)):
        known = [n for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, base) and c is not base]
        what = f"has no class {class_name!r}" if found is None else f"{class_name!r} is no {base.__name__}"
        raise ConfigError(f"{kind} {name!r}: {module_name} {what}.{nearest(class_name, known)}")
    return found


def build(kind: str, choice: Any) -> Any:
    """An instance: of a name, of `{"name": ..., option: value}`, or `choice` itself if it is a policy already."""
    base_module, _, base_name = BASES[kind].partition(":")
    if isinstance(choice, getattr(importlib.import_module(base_module), base_name)):
        return choice
    mapping = as_mapping(kind, choice)
    cls, options = resolve(kind, mapping["name"]), checked_options(kind, mapping)
    try:
        return cls(**options)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # not the call, but what the policy does when it is made
        raise ConfigError(f"[{kind} {mapping['name']}] cannot be made: {error}") from error


def checked_options(kind: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The options in `{"name": ..., option: value}`; ConfigError for one that the policy lacks or of a wrong type."""
    options = {key: value for key, value in mapping.items() if key != "name"}
    cls = resolve(kind, mapping["name"])
    if dataclasses.is_dataclass(cls):
        known = {f.name: f for f in dataclasses.fields(cls) if f.init}
        for key, value in options.items():
            if key not in known:
                why = no_dataclass(cls, str(key)) or f"has no option {key!r}.{did_you_mean(str(key), known)}"
                raise ConfigError(f"[{kind} {mapping['name']}] {why}")
            options[key] = _checked(kind, mapping["name"], known[key], value)
    return options


def as_mapping(kind: str, choice: object) -> dict[str, Any]:
    """`{"name": ..., option: value}` of a name, of one line `NAME,option=value`, or of such a mapping."""
    if isinstance(choice, Mapping):
        if not isinstance(choice.get("name"), str):
            raise ConfigError(f"a {kind} needs a name but got {dict(choice)!r}; write {{name: ..., option: value}}")
        return dict(choice)
    if not isinstance(choice, str) or not choice:
        made = f"; give an object of the class: {choice.__name__}()" if isinstance(choice, type) else ""
        raise ConfigError(f"a {kind} is a name or a mapping with a name but got {choice!r}{made}")
    name, *pairs = choice.split(",")
    options: dict[str, Any] = {"name": name.strip()}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{kind} {choice!r}: {pair!r} is not option=value")
        key = key.strip()
        if key in options:
            raise ConfigError(f"{kind} {choice!r}: {key!r} is given twice")
        try:
            options[key] = load_yaml(value, key)
        except ConfigError as error:
            raise ConfigError(f"{kind} {choice!r}: {value!r} is no value; write it as in YAML") from error
    return options


def _checked(kind: str, name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """The value, if it has the declared plain type: int is no bool, a float may be written as an int or as 1e-3."""
    declared = field.type.__name__ if isinstance(field.type, type) else str(field.type)
    allowed = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "None": (type(None),)}
    parts = [part.strip() for part in declared.split("|")]
    if any(part not in allowed for part in parts):
        return value  # a policy's own type: its constructor judges
    kinds = tuple(k for part in parts for k in allowed[part])
    if isinstance(value, str) and float in kinds and str not in kinds:
        with contextlib.suppress(ValueError):
            return float(value)  # YAML 1.1 reads 1e-3 as text
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(WORDS[part] for part in parts)
        raise ConfigError(f"[{kind} {name}] {field.name} must be {wanted} but got {value!r}")
    return value


def _load(kind: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{kind}: no module {error.name!r} (looking for {module_name!r})") from error
    except Exception as error:
        raise ConfigError(f"{kind}: {module_name!r} cannot be imported: {_in_a_line(error)}") from error


def _load_file(kind: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"{kind}: no file {path} (in {Path.cwd()})")
    # One module a file and version of it: replicas share the class, and an edited file is read again.
    name = f"llmsim_user_{path.stem}_{path.resolve()}_{path.stat().st_mtime_ns}".replace(".", "_")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{kind}: {path} cannot be imported: {_in_a_line(error)}") from error
    return module


def _in_a_line(error: Exception) -> str:
    """Kind and text of an error, and where it was raised (a SyntaxError says so itself)."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename != __file__ and not frame.filename.startswith("<")]
    if isinstance(error, SyntaxError) or not theirs or theirs[-1].lineno is None:
        return what
    return f"{what} ({place(theirs[-1].filename, theirs[-1].lineno)})"
