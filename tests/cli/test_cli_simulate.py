"""`llmsim simulate` as a person types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmsim.cli import app
from llmsim.runs.results import Result
from llmsim.testing import check_scheduler
from tests.command import typed

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["simulate", "--trace", "sharegpt4", "--num-requests", "60", "--calibration", "rtx-6000-ada/mistral-7b"]
OPEN = [*SMALL, "--rate", "1.5"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: stdout, stderr and the exit code as a shell sees them."""
    return subprocess.run([sys.executable, "-m", "llmsim", *arguments], capture_output=True, text=True, check=False)


def invoke(*arguments: str) -> list[dict]:
    """Summaries of a run in this process."""
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_several_schedulers_serve_the_same_requests_side_by_side(tmp_path):
    done = run(*OPEN, "--scheduler", "sarathi", "--scheduler", "vllm_v0", "--out", str(tmp_path))
    assert done.returncode == 0
    assert "TTFT" in done.stdout
    assert "KV avg%" in done.stdout
    assert "warning: " in done.stderr
    results = [Result.load(path) for path in sorted(tmp_path.iterdir())]
    assert len(results) == 2
    columns = ["id", "arrival_ns", "prompt_tokens", "output_tokens"]
    assert results[0].requests[columns].equals(results[1].requests[columns])
    assert {"ttft_s", "tpot_s", "max_itl_s", "e2el_s", "queue_s"} <= set(results[0].requests)


def test_json_goes_to_stdout_alone():
    done = run(*OPEN, "--json")
    (summary,) = json.loads(done.stdout)
    assert summary["sent"] == 60
    assert (summary["completed"], summary["rejected"]) == (59, 1)  # one asks for more than 8,192 tokens
    assert summary["calibration"]["share_outside_box"] > 0.5


def test_the_same_command_gives_the_same_bytes_and_so_does_step_by_step(tmp_path):
    texts = []
    for name, extra in (("a", []), ("b", []), ("c", ["--step-by-step"])):
        assert CliRunner().invoke(app, [*OPEN, *extra, "--out", str(tmp_path / name)]).exit_code == 0
        (folder,) = (tmp_path / name).iterdir()
        texts.append((folder / "summary.json").read_bytes())
    assert texts[0] == texts[1] == texts[2]


def test_another_seed_is_another_workload():
    assert invoke(*OPEN, "--seed", "1") != invoke(*OPEN, "--seed", "2")


def test_options_given_several_times_are_compared_and_each_run_says_what_it_is():
    made_up = ["simulate", "--calibration", "h100/llama-3.1-8b", "--prompt-tokens", "lognormal:500,0.8"]
    several = [*made_up, "--output-tokens", "20", "--num-requests", "30", "--rate", "2"]
    several += ["--rate", "4", "--replicas", "2"]
    found = invoke(*several, "--replicas", "1")
    assert [one["run"] for one in found] == [f"replicas={n}, {rate} req/s" for n in (2, 1) for rate in (2, 4)]
    (alone,) = invoke(*several[:-4], "--replicas", "1")
    assert "run" not in alone
    assert alone == {key: value for key, value in found[2].items() if key != "run"}
    text = CliRunner().invoke(app, several, catch_exceptions=False).stdout
    assert text.startswith("sarathi; llama-3.1-8b on h100; 2 replicas, round_robin; 30 requests with prompts of 500 ±")
    assert "No two of these runs serve the same requests, so none of them is called best." in text
    assert "*" not in text


def test_a_horizon_counts_what_it_cut_off():
    (summary,) = invoke(*OPEN, "--horizon", "20")
    counts = summary["requests"]
    assert summary["unfinished"] > 0
    assert counts["not_sent"] > 0
    assert summary["completed"] + summary["unfinished"] + counts["not_sent"] == 60
    assert any("unfinished" in note for note in summary["notes"])


def test_replicas_loads_slos_and_overrides_take_effect():
    (one,), (two,) = invoke(*SMALL, "--rate", "inf"), invoke(*SMALL, "--rate", "inf", "--replicas", "2")
    assert two["duration_s"] < 0.8 * one["duration_s"]
    (closed,) = invoke(*SMALL, "--max-concurrency", "4")
    assert closed["saturation"]["verdict"] == "closed loop"
    (slo,) = invoke(*OPEN, "--slo", "ttft:1", "--set", "engine.num_blocks=2000")
    assert slo["slo"]["met"] == 0
    assert slo["kv"]["num_blocks"] == 2000
    (warm,) = invoke(*OPEN, "--warmup", "10")
    assert warm["requests"]["warmup_excluded"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--calibration", "h100/mistral"], "there is no calibration 'h100/mistral'"),
        (["--scheduler", "sarati"], "Did you mean 'sarathi'?"),
        (["--trace", "nothing.csv"], "nothing.csv"),
        (["--strict-range"], "outside the profiled range"),
        (["--set", "engine.num_block=5"], "Did you mean 'num_blocks'?"),
        (["--set", "engine.num_blocks=200"], "raise engine.num_blocks"),
        (["--replicas", "0"], "replicas must be at least 1 but got 0"),
        (["--slo", "speed:5"], "speed"),
        (["--slo", "ttft:1000", "tpot:50"], 'quote the targets, --slo "ttft:1000 tpot:50", or give --slo once'),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_code_1(arguments, said, capfd):
    done = typed(capfd, *OPEN, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_rows_left_out_on_request_are_counted_and_said(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,5\n1,-3,5\n2,9000,5\n3,7,7\n")
    options = ["--trace", str(path), "--calibration", "rtx-6000-ada/mistral-7b"]
    refused = run("simulate", *options)
    assert refused.returncode == 1
    assert "row 3, column 'num_prefill_tokens': '-3' is not positive" in refused.stderr
    done = run("simulate", *options, "--on-bad", "drop", "--on-long", "drop", "--json")
    (summary,) = json.loads(done.stdout)
    assert summary["sent"] == 2
    assert sum(summary["requests"]["dropped_from_trace"].values()) == 2
    assert "left out of the trace: " in done.stderr


def test_a_run_file_takes_options_over_its_own(tmp_path):
    path = tmp_path / "run.yaml"
    arrivals = "{kind: gamma, rate: 1, burstiness: 0.5}"
    path.write_text(
        f"workload: {{trace: sharegpt4, num_requests: 30, arrivals: {arrivals}}}\n"
        "calibration: rtx-6000-ada/mistral-7b\nschedulers: [orca, sarathi]\n"
    )
    both = invoke("simulate", str(path))
    (only,) = invoke("simulate", str(path), "--scheduler", "vllm_v1", "--rate", "2", "--num-requests", "40")
    assert [s["scheduler"] for s in both] == ["orca", "sarathi"]
    assert (only["scheduler"], only["sent"]) == ("vllm_v1", 40)


def test_the_guide_to_writing_a_scheduler_works_as_written(tmp_path):
    text = (ROOT / "docs" / "write-a-scheduler.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    policies = [block for block in blocks if "@dataclass" in block]
    assert len(policies) == 2
    for at, (block, name) in enumerate(zip(policies, ("NaiveFcfs", "EarliestDeadlineFirst"), strict=True)):
        path = tmp_path / f"policy_{at}.py"
        path.write_text(block)
        scope: dict = {}
        exec(block, scope)
        check_scheduler(scope[name])
        (summary,) = invoke(*OPEN, "--scheduler", f"{path}:{name}")
        assert summary["completed"] == 60


def test_the_readme_policy_runs(tmp_path):
    block = next(b for b in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "class " in b)
    path = tmp_path / "mine.py"
    path.write_text(block)
    (summary,) = invoke(*OPEN, "--scheduler", f"{path}:ShortestPromptFirst")
    assert summary["completed"] == 60


def test_the_shipped_calibrations_are_listed_and_shown():
    listed = CliRunner().invoke(app, ["calibrations"]).stdout
    assert "rtx-6000-ada/mistral-7b" in listed
    shown = CliRunner().invoke(app, ["calibrations", "show", "a100/llama-3-8b", "--json"]).stdout
    assert json.loads(shown)["device"] == "a100"
