"""Reports on a device: parsing recorded answers of the kernel and of nvidia-smi, and what they warn of."""

from __future__ import annotations

import stat
import subprocess
import sys

import pytest

from llmsim.executors import device_info
from llmsim.executors.device_info import (
    GPU_FIELDS,
    device_name,
    device_report,
    gpu_warnings,
    host_facts,
    host_warnings,
    invalid_field,
    library_versions,
    other_processes,
    parse_gpu,
)

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9554 64-Core Processor
cpu MHz\t\t: 3096.122
cache size\t: 512 KB

processor\t: 1
model name\t: AMD EPYC 9554 64-Core Processor
cpu MHz\t\t: 3750.000
"""
# Order of GPU_FIELDS; application clocks are deprecated on this driver, as data centre drivers of the 580 series say.
IDLE = (
    "NVIDIA H200, 580.159.04, 143771 MiB, 345 MHz, 1980 MHz, 3201 MHz, 3201 MHz, [N/A], [N/A], 0x0000000000000001, "
    "Enabled, 76.34 W, 700.00 W, 29, Default, Disabled\n"
)
LOCKED = (
    "NVIDIA A100-SXM4-80GB, 535.104.05, 81920 MiB, 1410 MHz, 1410 MHz, 1593 MHz, 1593 MHz, 1275 MHz, 1593 MHz, "
    "0x0000000000000002, Enabled, 92.10 W, 400.00 W, 41, Default, Disabled\n"
)
HOT = (
    "NVIDIA RTX 6000 Ada Generation, 550.54.15, 49140 MiB, 2100 MHz, 3105 MHz, 10001 MHz, 10001 MHz, [N/A], [N/A], "
    "0x0000000000000024, Disabled, 298.51 W, 300.00 W, 86, Default, [N/A]\n"
)
UNKNOWN_FIELD = 'Field "clocks_event_reasons.active" is not a valid field to query.\n\n'


def test_the_host_is_read_from_proc():
    facts = host_facts(CPUINFO, "3.25 1.10 0.52 2/913 4711\n", {"governor": "schedutil"}, 64)
    assert facts == {
        "processor": "AMD EPYC 9554 64-Core Processor",
        "mhz": 3096.122,
        "cores": 64,
        "load_1min": 3.25,
        "governor": "schedutil",
    }
    assert host_facts("", "", {}, 2) == {"cores": 2}


def test_a_busy_host_is_warned_of_but_our_own_thread_is_not():
    assert host_warnings({"cores": 2, "load_1min": 1.9}, on_gpu=False) == []
    (busy,) = host_warnings({"cores": 2, "load_1min": 2.1}, on_gpu=False)
    assert "load 2.1 on 2 cores" in busy
    assert host_warnings({"cores": 16, "load_1min": 8.9}, on_gpu=True) == []


def test_a_frequency_governor_is_warned_of():
    (cpu,) = host_warnings({"cores": 1, "governor": "powersave"}, on_gpu=False)
    (gpu,) = host_warnings({"cores": 1, "governor": "powersave"}, on_gpu=True)
    assert "'powersave'" in cpu
    assert "every time varies" in cpu
    assert "host overhead varies" in gpu
    assert host_warnings({"cores": 1, "governor": "performance"}, on_gpu=False) == []


def test_a_gpu_is_read_by_field_and_what_it_lacks_is_left_out():
    gpu = parse_gpu(GPU_FIELDS, IDLE)
    assert gpu["name"] == "NVIDIA H200"
    assert gpu["clocks.max.sm"] == "1980 MHz"
    assert gpu["mig.mode.current"] == "Disabled"
    assert "clocks.applications.graphics" not in gpu
    assert "uuid" not in gpu
    assert parse_gpu(GPU_FIELDS, LOCKED)["clocks.applications.graphics"] == "1275 MHz"


@pytest.mark.parametrize("answer", ["", "\n", "NVIDIA H200, 580\n", "No devices were found\n"])
def test_an_answer_of_another_form_is_no_answer(answer):
    assert parse_gpu(GPU_FIELDS, answer) == {}


def test_an_idle_gpu_without_locked_clocks():
    (clocks,) = gpu_warnings(parse_gpu(GPU_FIELDS, IDLE), 0)
    assert "SM at 345 MHz, at most 1980 MHz" in clocks


def test_a_steady_gpu_is_not_warned_of():
    assert gpu_warnings(parse_gpu(GPU_FIELDS, LOCKED), 0) == []


def test_all_that_is_wrong_with_a_gpu_is_named():
    said = gpu_warnings(parse_gpu(GPU_FIELDS, HOT) | {"mig.mode.current": "Enabled"}, 2)
    assert len(said) == 5
    persistence, clocks, slowed, others, mig = said
    assert "persistence mode is off" in persistence
    assert "2100 MHz" in clocks
    assert "power cap, heat (driver) at 86 C" in slowed
    assert "2 other processes" in others
    assert "MIG is on" in mig


def test_processes_beside_ours_are_counted():
    assert other_processes("", 7, own_shows=False) == 0
    assert other_processes("7\n", 7, own_shows=False) == 0
    assert other_processes("7\n812\n", 7, own_shows=True) == 1
    assert other_processes("51234\n", 7, own_shows=True) == 0, "our own, under the pid of another name space"
    assert other_processes("51234\n", 7, own_shows=False) == 1


def test_the_name_of_an_unknown_field_is_found():
    assert invalid_field(UNKNOWN_FIELD) == "clocks_event_reasons.active"
    assert invalid_field("Unable to determine the device handle") is None


def smi(tmp_path, monkeypatch, script):
    """Puts a program nvidia-smi on the path, alone."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\nimport sys\n{script}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_fields_that_this_nvidia_smi_does_not_know_are_left_out(tmp_path, monkeypatch):
    smi(
        tmp_path,
        monkeypatch,
        f"""
fields = sys.argv[1].removeprefix("--query-gpu=").split(",")
if sys.argv[1].startswith("--query-compute-apps"):
    print("991")
elif "clocks_event_reasons.active" in fields:
    sys.exit({UNKNOWN_FIELD!r})
else:
    assert sys.argv[3] == "--id=1", sys.argv
    print(", ".join({{"name": "NVIDIA H200", "persistence_mode": "Enabled"}}.get(f, "[N/A]") for f in fields))
""",
    )
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(device_info, "library_versions", dict)
    report = device_report("cuda:1")
    assert report["gpu"] == {"name": "NVIDIA H200", "persistence_mode": "Enabled"}
    assert report["name"] == device_name("cuda:1") == "NVIDIA H200"
    assert any("1 other process on" in line for line in report["warnings"])


def test_a_failing_nvidia_smi_is_a_warning(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "sys.exit('Failed to initialize NVML: Driver/library version mismatch')")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(device_info, "library_versions", dict)
    report = device_report("cuda")
    assert report["gpu"] == {}
    assert any("state of cuda is unknown" in line and "version mismatch" in line for line in report["warnings"])


def test_a_missing_nvidia_smi_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(device_info, "library_versions", dict)
    assert any("nvidia-smi is not installed" in line for line in device_report("cuda")["warnings"])


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [("cuda", "", "0"), ("cuda:1", "", "1"), ("cuda:1", "4,6", "6"), ("cuda", "GPU-5e1f", "GPU-5e1f")],
)
def test_the_device_is_the_nth_visible_one(device, visible, expected):
    assert device_info._smi_id(device, visible) == expected


def test_this_machine_has_a_report():
    report = device_report("cpu")
    assert report["host"]["cores"] >= 1
    assert report["name"] == device_name("cpu")
    assert report["versions"] == library_versions()
    assert "gpu" not in report


def test_reading_about_a_device_needs_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, llmsim.executors.device_info; print('torch' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
