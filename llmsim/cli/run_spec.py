"""From options to the runs that they describe: the YAML file, with the options laid over it, and what is compared."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from llmsim.cli.groups import comparisons, settings
from llmsim.cli.options import RATE, RunOptions
from llmsim.errors import ConfigError

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec

MOST_RUNS = 64
"""Runs that one command compares: as many as a table can be read of. More are a sweep, which resumes."""
DRAWN_REQUESTS = 1000
"""Requests of lengths that are drawn, where no number is given: as `vllm bench serve` has it."""
LENGTHS = "--trace NAME, or --prompt-tokens 1500 --output-tokens 300"
ARRIVALS = "--rate or --max-concurrency"


def run_mappings(run: RunOptions, *more: object) -> list[dict[str, Any]]:
    """The run's YAML file (or nothing) with the options laid over it, those of the other groups too.

    One mapping for each combination of the options that are given several times.
    """
    base = _base(run, *more)
    axes = [axis for group in (*more, run) for axis in comparisons(group)]
    variants = []
    for values in itertools.product(*(values for _, _, values in axes)):
        mapping = copy.deepcopy(base)
        for (_, key, _), value in zip(axes, values, strict=True):
            _set(mapping, key, value)
        variants.append(mapping)
    _check_number(variants, [(option, len(values)) for option, _, values in axes])
    return variants


def run_mapping(run: RunOptions, *more: object) -> dict[str, Any]:
    """The one mapping, for a command that compares nothing but schedulers. ConfigError for an option given twice."""
    for group in (run, *more):
        for option, _, values in comparisons(group):
            if len(values) > 1:
                told = ", ".join(map(str, values))
                raise ConfigError(f"{option} is given {len(values)} times ({told}), but this command takes one")
    return run_mappings(run, *more)[0]


def run_specs(run: RunOptions, *mappings: dict[str, Any]) -> list[RunSpec]:
    """The runs, one a scheduler, that each mapping describes once --set is laid over it too."""
    from llmsim.spec.run_spec import load_runs

    return [
        spec for mapping in mappings for spec in load_runs(run.config, (), completed(run, mapping, ("calibration",)))
    ]


def completed(run: RunOptions, mapping: dict[str, Any], needed: Sequence[str] = ()) -> dict[str, Any]:
    """A copy of the mapping with --set laid over it, and the number of requests of lengths from the command line.

    ConfigError that names all options that are missing: for the requests, and for the keys `needed`.
    """
    from llmsim.spec.run_spec import apply_overrides

    mapping = copy.deepcopy(mapping)
    apply_overrides(mapping, run.overrides or ())
    workload = mapping.setdefault("workload", {})
    if not isinstance(workload, dict):
        return mapping  # for the loader to refuse
    absent = [f"{key!r} is missing; give it in the YAML file or as --{key}" for key in needed if key not in mapping]
    if missing := [*_missing(workload), *absent]:
        where = "command line" if run.config is None else str(run.config)
        raise ConfigError(f"{where}: {'. '.join(missing)}")
    if run.prompt_tokens is not None and workload.get("trace") is None:
        workload.setdefault("num_requests", DRAWN_REQUESTS)
    return mapping


def _missing(workload: dict[str, Any]) -> Iterator[str]:
    """What a workload lacks, with the options that give it; nothing where a trace may have it."""
    if workload.get("trace") is not None:
        return
    lengths, arrivals = workload.get("lengths"), workload.get("arrivals")
    there = [name for name in ("prompt", "output") if isinstance(lengths, dict) and lengths.get(name) is not None]
    timed = isinstance(arrivals, dict) and arrivals.get("kind", "trace") != "trace"
    if not there:
        what = "lengths of the requests are" if workload else "'workload' is"
        when = "" if timed else f" with {ARRIVALS}"
        yield f"{what} missing; give {'them' if workload else 'it'} in the YAML file or as {LENGTHS}{when}"
        return
    for name in ("prompt", "output"):
        if name not in there:
            yield f"{name} lengths are missing; give --{name}-tokens"
    if not timed:
        yield f"arrivals are missing; give {ARRIVALS}"


def _base(run: RunOptions, *more: object) -> dict[str, Any]:
    """The file and the options that say one thing of all runs."""
    from llmsim.spec.run_spec import put, read_run

    _refuse_target(run)
    if run.rate is not None and run.max_concurrency is not None:
        raise typer.BadParameter("--rate and --max-concurrency exclude each other: an open or a closed loop")
    mapping: dict[str, Any] = {} if run.config is None else read_run(run.config)
    for group in (run, *more):
        for key, value in settings(group):
            put(mapping, key, value)
            if key == "schedulers":  # in place of the file's, which may be a single one
                mapping.pop("scheduler", None)
    _set_lengths(mapping, {"prompt": run.prompt_tokens, "output": run.output_tokens})
    if run.max_concurrency is not None:
        put(mapping, "workload.arrivals", {"kind": "closed_loop", "max_concurrency": run.max_concurrency})
    return mapping


def _check_number(variants: Sequence[dict[str, Any]], axes: list[tuple[str, int]]) -> None:
    schedulers = variants[0].get("schedulers")
    each = len(schedulers) if isinstance(schedulers, list) else 1
    if len(variants) * each > MOST_RUNS:
        grid = " x ".join(f"{count} {option}" for option, count in (*axes, ("--scheduler", each)) if count > 1)
        raise ConfigError(
            f"{len(variants) * each} runs ({grid}) are more than a command compares, at most {MOST_RUNS}; `llmsim "
            "sweep` takes a grid of any size, on all cores, and goes on where it stopped (docs/sweeps.md)"
        )


def _refuse_target(run: RunOptions) -> None:
    """ConfigError for a target in the place of the run's file: vLLM's --goodput takes several values, ours one."""
    if run.config is not None and re.fullmatch(r"[a-z0-9]+:[0-9.]+", str(run.config)) and not run.config.exists():
        together = " ".join([*(run.slo or ()), str(run.config)])
        raise ConfigError(
            f"{run.config} is read as the file of the run, as --slo takes one value; quote the targets, --slo "
            f'"{together}", or give --slo once for each'
        )


def _set_lengths(mapping: dict[str, Any], given: dict[str, str | None]) -> None:
    """--prompt-tokens and --output-tokens take the place of other kinds of lengths, and of one of two distributions."""
    from llmsim.spec.run_spec import put

    new = {name: text for name, text in given.items() if text is not None}
    if not new:
        return
    workload = mapping.get("workload")
    held = workload.get("lengths") if isinstance(workload, dict) else None
    kept = held if isinstance(held, dict) and held.get("kind", "synthetic") == "synthetic" else {}
    put(mapping, "workload.lengths", {**kept, **new})


def _set(mapping: dict[str, Any], key: str, value: object) -> None:
    """A rate means Poisson arrivals unless the file names a process with a rate of its own."""
    from llmsim.spec.run_spec import put

    workload = mapping.get("workload")
    arrivals = workload.get("arrivals") if isinstance(workload, dict) else None
    kind = arrivals.get("kind") if isinstance(arrivals, dict) else None
    if key == RATE and kind not in ("poisson", "gamma", "constant"):
        put(mapping, "workload.arrivals", {"kind": "poisson", "rate": value})
    else:
        put(mapping, key, value)
