"""What a device was like when it was measured: for manifests, with warnings of what makes times unsteady.

Read only: no setting of the device is changed. Needs no torch; parsing is apart from asking, so that it is tested on
recorded answers. A fact that a machine does not give is left out.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

LIBRARIES = {"torch": "torch", "flashinfer": "flashinfer-python"}
"""Name in a manifest -> name of the distribution."""

GPU_FIELDS = (
    "name",
    "driver_version",
    "memory.total",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "clocks.max.mem",
    "clocks.applications.graphics",
    "clocks.applications.memory",
    "clocks_event_reasons.active",
    "persistence_mode",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "compute_mode",
    "mig.mode.current",
)
"""Asked of nvidia-smi, in its own words, which are the keys of the answer too."""

CLOCKS_SET = 0x2
"""Bit of clocks_event_reasons.active: clocks are held by a setting (NVML, nvmlClocksEventReasons)."""
SLOWED = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "heat (driver)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
BUSY_PER_CORE = 0.5
SMI_TIMEOUT_S = 20


class SmiAnswer(NamedTuple):
    """What nvidia-smi said, and whether it succeeded."""

    ok: bool
    text: str


def device_report(device: str) -> dict[str, Any]:
    """Facts about `device` (cpu, cuda or cuda:N) and its host, as found, and `warnings`, a list of sentences."""
    host = host_facts(_read("/proc/cpuinfo"), _read("/proc/loadavg"), _frequency_settings(), _cores())
    found: dict[str, Any] = {"device": device, "name": _processor(host), "host": host, "versions": library_versions()}
    warnings = host_warnings(host, on_gpu=device != "cpu")
    if device != "cpu":
        gpu, said = _gpu(device)
        found |= {"name": _gpu_name(gpu, device), "gpu": gpu}
        warnings = said + warnings
    return {**found, "warnings": warnings}


def device_name(device: str) -> str:
    """The name of the GPU as its driver gives it, or the processor's; "unknown" if it is not to be had."""
    if device == "cpu":
        return _processor(host_facts(_read("/proc/cpuinfo"), "", {}, 1))
    return _gpu_name(_gpu(device)[0], device)


def library_versions() -> dict[str, str]:
    """Versions that decide how long a batch takes: python, torch, its CUDA, flashinfer; those that are installed."""
    found = {"python": platform.python_version()}
    for name, distribution in LIBRARIES.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:
            continue
    if find_spec("torch") is not None:
        import torch

        found["torch"] = str(torch.__version__)  # with its build, which the distribution's metadata may lack
        if torch.version.cuda:
            found["cuda"] = torch.version.cuda
    return found


def host_facts(cpuinfo: str, loadavg: str, frequency: Mapping[str, str], cores: int) -> dict[str, Any]:
    """Processor, usable cores, load of the last minute, and the frequency settings that the kernel shows.

    `cpuinfo` and `loadavg` are the texts of those files in /proc, empty where there are none.
    """
    facts: dict[str, Any] = {}
    for key, field in (("processor", "model name"), ("mhz", "cpu MHz")):
        line = re.search(rf"^{field}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        if line:
            facts[key] = float(line[1]) if key == "mhz" else line[1].strip()
    facts["cores"] = cores
    if loadavg:
        facts["load_1min"] = float(loadavg.split()[0])
    return {**facts, **frequency}


def host_warnings(host: Mapping[str, Any], *, on_gpu: bool) -> list[str]:
    """What of the host makes times unsteady. One running thread, ours, is taken off the load."""
    found = []
    load, cores = host.get("load_1min"), host["cores"]
    if load is not None and load - 1 > BUSY_PER_CORE * cores:
        found.append(f"the machine is busy: load {load:g} on {cores} cores, our own thread included; stop other work")
    governor = host.get("governor")
    if governor not in (None, "performance"):
        touched = "host overhead" if on_gpu else "every time"
        found.append(f"the CPU frequency governor is {governor!r}, not 'performance': {touched} varies with it")
    return found


def parse_gpu(fields: Sequence[str], answer: str) -> dict[str, str]:
    """One line of nvidia-smi's csv without a header, by field; what is not supported or available is left out."""
    values = [value.strip() for value in answer.strip().splitlines()[0].split(",")] if answer.strip() else []
    if len(values) != len(fields):
        return {}
    return {f: v for f, v in zip(fields, values, strict=True) if v and not re.match(r"\[.*\]$|N/A$", v)}


def invalid_field(answer: str) -> str | None:
    """The field that this version of nvidia-smi does not know, if it says so."""
    found = re.search(r'Field "(.+?)" is not a valid field', answer)
    return found[1] if found else None


def gpu_warnings(gpu: Mapping[str, str], others: int) -> list[str]:
    """What of a GPU makes times unsteady; `others` is the number of processes on it beside this one."""
    found = []
    if gpu.get("persistence_mode") == "Disabled":
        found.append("persistence mode is off: the driver may unload between runs; nvidia-smi -pm 1 keeps it")
    reasons = int(gpu.get("clocks_event_reasons.active", "0x0"), 16)
    if not reasons & CLOCKS_SET:
        now, most = gpu.get("clocks.sm", "unknown"), gpu.get("clocks.max.sm", "unknown")
        found.append(
            f"nothing shows that the clocks are locked (SM at {now}, at most {most}); nvidia-smi -lgc locks them"
        )
    slowed = [why for bit, why in SLOWED.items() if reasons & bit]
    if slowed:
        found.append(f"the GPU is slowed down by {', '.join(slowed)} at {gpu.get('temperature.gpu', 'unknown')} C")
    if others:
        found.append(f"{others} other process{'es' if others > 1 else ''} on the GPU: times include waiting for them")
    if gpu.get("mig.mode.current") == "Enabled":
        found.append("MIG is on: this is a part of a GPU, and neighbours share its memory's bandwidth or power")
    return found


def other_processes(answer: str, own: int, *, own_shows: bool) -> int:
    """Processes on the GPU that are not this one, from nvidia-smi's list of pids.

    Inside a container the list may hold pids of another name space: with `own_shows`, one of them is ours anyhow.
    """
    pids = [int(line) for line in answer.split() if line.isdigit()]
    if own in pids or own_shows:
        return max(len(pids) - 1, 0)
    return len(pids)


def _processor(host: Mapping[str, Any]) -> str:
    return str(host.get("processor") or platform.processor() or "unknown")


def _gpu_name(gpu: Mapping[str, str], device: str) -> str:
    """As nvidia-smi has it, else as a loaded torch has it."""
    torch = sys.modules.get("torch")
    if "name" not in gpu and torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(device))
    return gpu.get("name", "unknown")


def _gpu(device: str) -> tuple[dict[str, str], list[str]]:
    """Facts and warnings of a CUDA device; none of the former and a warning if nvidia-smi does not answer."""
    chosen = f"--id={_smi_id(device, os.environ.get('CUDA_VISIBLE_DEVICES', ''))}"
    fields = list(GPU_FIELDS)
    answer = _smi(f"--query-gpu={','.join(fields)}", "--format=csv,noheader", chosen)
    while not answer.ok and (unknown := invalid_field(answer.text)) in fields:
        fields.remove(str(unknown))
        answer = _smi(f"--query-gpu={','.join(fields)}", "--format=csv,noheader", chosen)
    gpu = parse_gpu(fields, answer.text) if answer.ok else {}
    if not gpu:
        return {}, [
            f"the state of {device} is unknown, as nvidia-smi did not give it: {answer.text.strip() or 'no answer'}"
        ]
    apps = _smi("--query-compute-apps=pid", "--format=csv,noheader", chosen)
    torch = sys.modules.get("torch")
    ours = torch is not None and torch.cuda.is_initialized()
    return gpu, gpu_warnings(gpu, other_processes(apps.text, os.getpid(), own_shows=ours) if apps.ok else 0)


def _smi_id(device: str, visible: str) -> str:
    """nvidia-smi's index or UUID of a torch device: the N-th visible one."""
    index = int(device.partition(":")[2] or 0)
    shown = [entry.strip() for entry in visible.split(",") if entry.strip()]
    return shown[index] if index < len(shown) else str(index)


def _smi(*arguments: str) -> SmiAnswer:
    program = shutil.which("nvidia-smi")
    if program is None:
        return SmiAnswer(False, "nvidia-smi is not installed")
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return SmiAnswer(False, str(error))
    return SmiAnswer(done.returncode == 0, done.stdout if done.returncode == 0 else done.stdout + done.stderr)


def _frequency_settings() -> dict[str, str]:
    folder = "/sys/devices/system/cpu/cpu0/cpufreq"
    names = {"governor": "scaling_governor", "frequency_driver": "scaling_driver", "max_khz": "scaling_max_freq"}
    held = {key: _read(f"{folder}/{name}").strip() for key, name in names.items()}
    return {key: value for key, value in held.items() if value}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
