"""`llmsim schedulers`, `routers` and `engines`: which there are, with their options, defaults and what they follow."""

from __future__ import annotations

import json
from typing import Annotated

import typer

Names = Annotated[
    list[str] | None, typer.Argument(help="Only these; file.py:Class for one of your own.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print them as JSON.")]


def schedulers(names: Names = None, as_json: Json = False) -> None:
    """List the schedulers: options with types and defaults, and the paper or engine that each follows."""
    _show("scheduler", names, as_json)


def routers(names: Names = None, as_json: Json = False) -> None:
    """List the routers: options with types and defaults, and what each follows."""
    _show("router", names, as_json)


def engines(as_json: Json = False) -> None:
    """List the engines: version, and what a server of it starts with on each class of GPU."""
    from llmsim.spec.engines import engines as known
    from llmsim.spec.engines import engines_text

    found = known()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(engines_text(found))
    print("\nUse: --engine NAME, or engine: {name: NAME} in YAML, in groups too; docs/clusters.md has more.")


def _show(kind: str, names: list[str] | None, as_json: bool) -> None:
    from llmsim.spec.policies import policies, policies_text

    found = policies(kind, names)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(policies_text(found))
    option = "--scheduler" if kind == "scheduler" else "--set cluster.router="
    example = "sarathi,chunk_size=256" if kind == "scheduler" else "least_work,decode_batch=64"
    own = "docs/write-a-scheduler.md tells how to write one"
    print(f"\nUse: {option}{' ' if kind == 'scheduler' else ''}{example}, or file.py:Class; {own}.")
