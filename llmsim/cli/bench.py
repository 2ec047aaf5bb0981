"""`llmsim bench`: a trace against a real OpenAI-compatible server, measured as a simulated run is."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmsim.cli.console import say, stages, warn
from llmsim.cli.groups import expand_groups
from llmsim.cli.options import RunOptions
from llmsim.cli.run_spec import completed, run_mapping
from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from llmsim.client.spec import BenchSpec
    from llmsim.runs.results import Result

INTERRUPTED = 130


@expand_groups()
def bench(
    run: RunOptions,
    *,
    endpoint: Annotated[str | None, typer.Option(help="Address of the server: http://127.0.0.1:8000")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model, as the server lists it.")] = None,
    api: Annotated[str | None, typer.Option(help="completions (default) or chat.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Texts to send instead of made ones: a JSON list, or a ShareGPT file.")
    ] = None,
    prompt_kind: Annotated[str | None, typer.Option(help="ids, words, or auto (ids if the server takes them).")] = None,
    token_ids: Annotated[
        str | None, typer.Option(metavar="FIRST:LAST", help="Ids to draw (default 1000:30000).")
    ] = None,
    prompt_seed: Annotated[int | None, typer.Option(help="Seed of the prompts (default: others every run).")] = None,
    force_length: Annotated[
        bool | None, typer.Option(help="Send ignore_eos and min_tokens (default: if the server takes them).")
    ] = None,
    usage: Annotated[bool | None, typer.Option(help="Ask for token counts (default: if the server takes it).")] = None,
    extra_body: Annotated[str | None, typer.Option(help='JSON laid over every request: {"temperature": 0}.')] = None,
    header: Annotated[list[str] | None, typer.Option(help="'Name: value' of every request; saved nowhere.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Longest prompt (default: what the server says).")] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which a request has failed (default 600).")
    ] = None,
    warm_up_requests: Annotated[int | None, typer.Option(help="Sent before, not measured (default 1).")] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for a server that does not answer yet.")] = 0.0,
) -> None:
    """Replay a workload against a real server and measure it.

    The workload's options are those of `simulate` and make the same requests. Needs aiohttp (the extra `bench`). Exit
    code 1 if no request was answered, 130 if it was interrupted (what was measured is kept).
    """
    from llmsim.runs.folders import check_out

    need_aiohttp()
    own = dict(
        endpoint=endpoint, model=model, api=api, prompts=None if prompts is None else str(prompts),
        prompt_kind=prompt_kind, token_ids=_range(token_ids), prompt_seed=prompt_seed, force_length=force_length,
        usage=usage, extra_body=_object(extra_body), max_model_len=max_model_len, timeout_s=timeout,
        warm_up_requests=warm_up_requests,
    )  # fmt: skip
    mapping = run_mapping(run) | {key: value for key, value in own.items() if value is not None}
    spec = _spec(run, mapping)
    check_out(run.out)
    result = _run(spec, _headers(header or []), wait, run.progress)
    _keep_and_show(result, spec, run)
    if result.summary["client"]["interrupted"]:
        raise typer.Exit(INTERRUPTED)
    if not result.summary["completed"]:
        raise typer.Exit(1)


def need_aiohttp() -> None:
    """Raise ConfigError, with what to install, if there is no aiohttp."""
    from importlib.util import find_spec

    if find_spec("aiohttp") is None:
        raise ConfigError("bench speaks HTTP with aiohttp, which is not installed: pip install 'llmsim[bench]'")


def _spec(run: RunOptions, mapping: dict[str, Any]) -> BenchSpec:
    from llmsim.client.spec import load_bench

    return load_bench(completed(run, mapping), "command line" if run.config is None else str(run.config))


def _range(text: str | None) -> list[int] | None:
    if text is None:
        return None
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit()):
        raise ConfigError(f"--token-ids takes FIRST:LAST, such as 1000:30000, but got {text!r}")
    return [int(first), int(last)]


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        loaded = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--extra-body takes a JSON object but got {text!r} ({error})") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"--extra-body takes a JSON object but got {text!r}")
    return loaded


def _headers(given: list[str]) -> dict[str, str]:
    """Those given, and the key in OPENAI_API_KEY, if there is one."""
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    seen: set[str] = set()
    for line in given:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConfigError("--header takes 'Name: value' but got a line without a name or a colon")
        if name.strip().casefold() in seen:
            raise ConfigError(f"--header gives {name.strip()} twice; give it once")
        seen.add(name.strip().casefold())
        headers[name.strip()] = value.strip()
    return headers


def _run(spec: BenchSpec, headers: dict[str, str], wait_s: float, mode: str) -> Result:
    import asyncio

    from llmsim.client.run import bench as measure

    allow_many_connections()
    with stages(mode) as tell:
        work = measure(
            spec, headers=headers, wait_s=wait_s, progress=lambda done, total: tell("measuring", done, total)
        )
        result = asyncio.run(work)
    return replace(result, manifest={"arguments": without_headers(sys.argv[1:]), **result.manifest})


def allow_many_connections() -> None:
    """Lift this process's limit on open files to what the system allows: every request in flight is one."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def without_headers(arguments: list[str]) -> list[str]:
    """The arguments with the values of --header blotted out: they may be keys."""
    kept = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before == "--header":
            argument = "..."
        kept.append("--header=..." if argument.startswith("--header=") else argument)
    return kept


def _keep_and_show(result: Result, spec: BenchSpec, run: RunOptions) -> None:
    """Save it and print it. A server is not measured twice: what cannot be saved, or shown, is kept elsewhere."""
    try:
        folder = None if run.out is None else _save(result, spec, run.out)
    except BaseException:
        try:
            _keep_elsewhere(result, spec)
        finally:
            _show(result, run.as_json)
        raise
    try:
        _show(result, run.as_json)
        sys.stdout.flush()
    except BaseException:
        if folder is None:
            _keep_elsewhere(result, spec)
        raise
    if folder is not None:
        say(f"saved {folder}", run.as_json)


def _save(result: Result, spec: BenchSpec, out: Path) -> Path:
    from llmsim.client.files import requests_csv, vllm_record
    from llmsim.runs.headline import to_json

    utc = datetime.now(UTC)
    files = {"requests.csv": requests_csv(result), "vllm_bench.json": to_json(vllm_record(result, spec, utc))}
    return result.save(out, utc=utc, files=files)


def _keep_elsewhere(result: Result, spec: BenchSpec) -> None:
    """Save it in a temporary place, and say where."""
    from tempfile import mkdtemp

    place = Path(mkdtemp(prefix="llmsim-bench-"))
    try:
        folder = _save(result, spec, place)
    except Exception:  # perhaps a file of another tool cannot be made of it
        folder = result.save(place)
    warn(f"what was measured is kept in {folder}")


def _show(result: Result, as_json: bool) -> None:
    from llmsim.client.text import client_text
    from llmsim.runs.text import comparison

    if as_json:
        print(json.dumps(result.summary, indent=2))
    else:
        print(f"{comparison([result])}\n\n{client_text(result.summary)}")
    for line in result.warnings():
        warn(f"warning: {line}")
