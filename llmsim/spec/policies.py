"""The built-in policies as a table: names, options with types and defaults, what each does, and what it follows."""

from __future__ import annotations

import dataclasses
from typing import Any

from llmsim.errors import ConfigError
from llmsim.spec import registry

_SLAI = "agrimUT/SLAI at 5098a7a"
_SUITE = "LLM Scheduler Benchmark Suite, llm-scheduler at 0255878"
_RAD = "arXiv 2508.01002"

SOURCES: dict[str, dict[str, str]] = {
    "scheduler": {
        "dynamic": f"{_SUITE}, dynamic_scheduler.py",
        "faster_transformer": f"baseline of sarathi-serve, in {_SLAI}",
        "hold_n": f"probe of {_SLAI}",
        "naive": f"{_SUITE}, naive_scheduler.py",
        "niyama": "arXiv 2503.22562; microsoft/sarathi-serve, branch niyama_asplos2026, at 72339db",
        "orca": f"Orca (OSDI'22); baseline of sarathi-serve, in {_SLAI}",
        "rad": f"{_RAD}, Algorithm 1",
        "sarathi": f"Sarathi-Serve (OSDI'24); {_SLAI}",
        "simple_chunking": f"ablation of sarathi-serve, in {_SLAI}",
        "slai": f"{_RAD}, section 5; {_SLAI}",
        "vllm_v0": f"vLLM before its v1 engine; baseline of sarathi-serve, in {_SLAI}",
        "vllm_v1": "vLLM of early 2026, vllm/v1/core/sched/scheduler.py",
    },
    "router": {
        "least_requests": "textbook (join the shortest queue)",
        "least_tokens": "llmsim's own",
        "least_work": "llmsim's own",
        "most_free_kv": "llmsim's own",
        "power_of_two": "Mitzenmacher, 2001 (power of two choices)",
        "random": f"the planner of RAD's theorem, {_RAD}",
        "round_robin": "textbook",
    },
}
"""Paper, or engine and version, that a policy follows."""


def described(kind: str, name: str) -> dict[str, Any]:
    """Name, summary (the first line of the class's docstring), source and options of a policy: plain JSON values.

    `source` is None for a policy of the user's own; an option has a name, a type and a default (None if it has to be
    given, too: then `required` is true). Raises ConfigError for a policy that cannot be had.
    """
    cls: Any = registry.resolve(kind, name)
    options = [_option(field) for field in dataclasses.fields(cls) if field.init] if _is_dataclass(cls) else []
    summary = (cls.__doc__ or "").strip().partition("\n")[0]
    if summary.startswith(f"{cls.__name__}("):  # what @dataclass writes where there is none
        summary = ""
    return {"name": name, "summary": summary, "source": SOURCES[kind].get(name), "options": options}


def _is_dataclass(cls: type) -> bool:
    return dataclasses.is_dataclass(cls)


def _option(field: dataclasses.Field[Any]) -> dict[str, Any]:
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    default = None
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif not required:
        default = field.default
    kind = field.type.__name__ if isinstance(field.type, type) else str(field.type)
    if isinstance(default, tuple):
        default = list(default)
    plain = isinstance(default, bool | int | float | str | list | dict | None)
    return {"name": field.name, "type": kind, "default": default if plain else repr(default), "required": required}


def policies(kind: str, names: list[str] | None = None) -> list[dict[str, Any]]:
    """All built-in policies of a kind, by name, or those that are asked for."""
    if kind not in registry.BUILT_IN:
        raise ConfigError(f"policies are of kind {' or '.join(registry.BUILT_IN)} but got {kind!r}")
    return [described(kind, name) for name in names or registry.names(kind)]


def policies_text(found: list[dict[str, Any]]) -> str:
    """A paragraph a policy: name and summary, its options a line each, and what it follows."""
    paragraphs = []
    for one in found:
        lines = [f"{one['name']}  {one['summary']}".rstrip()]
        lines += [f"    {option['name']}: {option['type']}{_default(option)}" for option in one["options"]]
        lines += [f"    follows: {one['source']}"] if one["source"] else []
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def _default(option: dict[str, Any]) -> str:
    if option["required"]:
        return " (has to be given)"
    default = option["default"]
    return f" = {'none' if default is None else str(default).lower() if isinstance(default, bool) else default}"
