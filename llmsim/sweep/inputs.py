"""What a run reads beside its spec: trace, calibrations, policies of the user; by path, held to their digests.

A point is known by its content: the digests stand in its key where the spec has paths. Workers check them before they
run, so that another file under the same path, on another machine, is an error and not another result.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsim.costs.calibration import load_calibration
from llmsim.errors import ConfigError
from llmsim.spec import strict
from llmsim.spec.registry import as_mapping
from llmsim.spec.run_spec import GroupSpec
from llmsim.traces import files, shipped

if TYPE_CHECKING:
    from llmsim.spec.run_spec import RunSpec

Digests = dict[str, str]
"""SHA-256 by 'trace NAME', 'calibration NAME' or 'policy FILE'."""


def absolute(spec: RunSpec) -> RunSpec:
    """The spec with the paths of its files absolute: a worker may stand in another folder."""
    workload = replace(spec.workload, trace=None if spec.workload.trace is None else _path(spec.workload.trace))
    groups = tuple(_absolute_group(group) for group in spec.cluster.groups)
    router = _policy(spec.cluster.router, "router")
    return spec.replace(
        workload=workload,
        calibration=_path(spec.calibration),
        scheduler=_policy(spec.scheduler, "scheduler"),
        cluster=replace(spec.cluster, router=router, groups=groups),
    )


def _absolute_group(group: GroupSpec) -> GroupSpec:
    return replace(
        group,
        calibration=None if group.calibration is None else _path(group.calibration),
        scheduler=None if group.scheduler is None else _policy(group.scheduler, "scheduler"),
    )


def _path(name: str) -> str:
    """A file's absolute path; the name of something shipped stays a name."""
    return str(Path(name).absolute()) if Path(name).is_file() else name


def _policy(choice: str | dict[str, Any], kind: str) -> dict[str, Any]:
    """The policy as a mapping, its file (file.py:Class) and the file of its predictor with absolute paths."""
    mapping = as_mapping(kind, choice)
    file, colon, name = mapping["name"].rpartition(":")
    if colon and file.endswith(".py"):
        mapping["name"] = f"{_path(file)}:{name}"
    if isinstance(mapping.get("predictor"), str):
        mapping["predictor"] = _path(mapping["predictor"])
    return mapping


def digests_of(spec: RunSpec) -> Digests:
    """The digests of all that this spec (of `absolute`) reads.

    Raises TraceError, CalibrationError or ConfigError for what is not there or cannot be read.
    """
    names = [f"calibration {name}" for name in _calibrations(spec)]
    names += [] if spec.workload.trace is None else [f"trace {spec.workload.trace}"]
    names += [f"policy {file}" for file in _policy_files(spec)]
    return {name: digest(name) for name in sorted(set(names))}


def _calibrations(spec: RunSpec) -> list[str]:
    """Those of the replicas, and those that policies plan with."""
    names = [spec.calibration, *(group.calibration for group in spec.cluster.groups)]
    names += [policy.get("predictor") for policy in _policies(spec)]
    return [name for name in names if isinstance(name, str) and name != "published"]


def _policies(spec: RunSpec) -> list[Mapping[str, Any]]:
    given = (spec.scheduler, spec.cluster.router, *(group.scheduler for group in spec.cluster.groups))
    return [policy for policy in given if isinstance(policy, Mapping)]


def _policy_files(spec: RunSpec) -> list[str]:
    files_of = (str(policy["name"]).rpartition(":")[0] for policy in _policies(spec))
    return [file for file in files_of if file.endswith(".py")]


def digest(name: str) -> str:
    """SHA-256 of 'trace NAME' (decompressed), 'calibration NAME' (as llmsim reads it) or 'policy FILE'."""
    kind, _, what = name.partition(" ")
    path = shipped.resolve(what) if kind == "trace" else Path(what)
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
    return _digest(kind, what, stamp)


@cache
def _digest(kind: str, what: str, stamp: tuple[int, int]) -> str:
    """`stamp` (time, size) is there so that a changed file is read again."""
    if kind == "calibration":
        return hashlib.sha256(load_calibration(what).to_json().encode()).hexdigest()
    if kind == "trace":
        return files.sha256(files.read_bytes(shipped.resolve(what)))
    try:
        return files.sha256(Path(what).read_bytes())
    except OSError as error:
        raise ConfigError(f"policy file {what} cannot be read: {error.strerror}; give its path") from None


def check(digests: Digests) -> None:
    """ConfigError if a file on this machine is not the one that the sweep was planned with; TraceError if it lacks."""
    for name, wanted in digests.items():
        found = digest(name)
        if found != wanted:
            raise ConfigError(
                f"{name} on {socket.gethostname()} has SHA-256 {found[:12]}... but the sweep was planned with "
                f"{wanted[:12]}...; copy the same file to every machine, under the same path"
            )


def content(spec: RunSpec, digests: Digests) -> dict[str, Any]:
    """The spec (of `absolute`) as plain data with digests in place of paths and names: what decides its result."""
    plain: dict[str, Any] = strict.dump(spec)
    del plain["name"]  # a label
    for holder in (plain, *plain["cluster"]["groups"]):
        if "calibration" in holder:
            holder["calibration"] = digests[f"calibration {holder['calibration']}"]
        if "scheduler" in holder:
            holder["scheduler"] = _policy_content(holder["scheduler"], digests)
    plain["cluster"]["router"] = _policy_content(plain["cluster"]["router"], digests)
    if "trace" in plain["workload"]:
        plain["workload"]["trace"] = digests[f"trace {plain['workload']['trace']}"]
    return plain


def _policy_content(policy: dict[str, Any], digests: Digests) -> dict[str, Any]:
    changed = dict(policy)
    file, _, name = str(policy["name"]).rpartition(":")
    if f"policy {file}" in digests:
        changed["name"] = f"{digests[f'policy {file}']}:{name}"
    if f"calibration {policy.get('predictor')}" in digests:
        changed["predictor"] = digests[f"calibration {policy['predictor']}"]
    return changed
