"""The decision traces of the original schedulers, where the shared folder is present; and the comparer itself."""

from __future__ import annotations

import gzip
import json

import pytest

from llmsim.testing import golden

ORIGINALS = ["niyama", "sarathi", "vllm-", "orca", "faster_transformer", "simple_chunking", "slai"]


def files(shared):
    found = [p for p in sorted((shared / "golden").glob("*.json.gz")) if p.name.startswith(tuple(ORIGINALS))]
    if not found:
        pytest.skip("no decision traces in the shared folder")
    return found


def test_every_decision_trace_is_matched(shared, capsys):
    paths = files(shared)
    assert golden.main([str(path) for path in paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(paths) + 1
    assert all(" mismatches 0" in line for line in lines)


def test_every_trace_of_vllm_v1_is_matched(shared, capsys):
    paths = sorted((shared / "golden").glob("vllm_v1*/*.json.gz"))
    if not paths:
        pytest.skip("no decision traces of vLLM v1 in the shared folder")
    assert golden.main([str(path) for path in paths]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    assert len(lines) == len(paths)
    assert all(" mismatches 0" in line for line in lines)
    assert "not replayable" not in total


def test_a_trace_that_needs_more_is_counted_and_is_no_match(tmp_path, capsys):
    trace = tiny_trace() | {"pipeline": {"stages": 2}}
    code, out = run(trace, tmp_path, capsys)
    assert code == 2  # nothing was compared
    assert out == (
        "trace.json.gz: not replayable: needs pipeline stages\n"
        "total: files 1 iterations 0 mismatches 0 not replayable 1 (pipeline stages: 1)\n"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["semantics"].update(overlap=True), "semantics may hold"),
        (lambda t: t["params"].update(colour="red"), "colour"),
    ],
)
def test_what_is_not_known_is_an_error_and_not_left_out(change, said, tmp_path, capsys):
    trace = tiny_trace()
    change(trace)
    code, out = run(trace, tmp_path, capsys)
    assert code == 2
    assert said in out


def test_help_says_what_the_files_are_and_what_the_exit_code_means(capsys):
    with pytest.raises(SystemExit) as stopped:
        golden.main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "decision trace" in said
    assert "Exit code" in said


def tiny_trace() -> dict:
    """One prompt of 20 tokens in chunks of 16, then two decodes, as Sarathi runs it."""
    times = [0.5, 0.51, 0.52, 0.53, 0.54]
    batches = [[[0, 16]], [[0, 4]], [[0, 0]], [[0, 0]]]
    free = [8, 8, 8, 10]
    return {
        "scheduler": "sarathi",
        "params": {"chunk_size": 16, "order": "fcfs"},
        "kv": {"block_size": 16, "num_blocks": 10, "watermark": 0.01, "max_model_len": 100},
        "semantics": {"first_token_at_prefill_end": False, "preempted_request_regenerates_output": True},
        "cost": {"floor_s": 0.01, "base_s": 0.0, "per_token_s": 0.0, "per_decode_context_token_s": 0.0},
        "requests": [{"id": 0, "arrival_s": 0.5, "prompt_tokens": 20, "output_tokens": 2}],
        "iterations": [
            {"start_s": a, "end_s": b, "batch": batch, "preempted": [], "free_blocks": blocks}
            for a, b, batch, blocks in zip(times, times[1:], batches, free, strict=False)
        ],
    }


def run(trace, tmp_path, capsys):
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps(trace).encode()))
    code = golden.main([str(path)])
    return code, capsys.readouterr().out


def test_a_right_trace_passes(tmp_path, capsys):
    code, out = run(tiny_trace(), tmp_path, capsys)
    assert code == 0
    assert out == "trace.json.gz: iterations 4 mismatches 0\ntotal: files 1 iterations 4 mismatches 0\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["iterations"][1].update(batch=[[0, 5]]), "first at iteration 1: batch"),
        (lambda t: t["iterations"][2].update(free_blocks=7), "first at iteration 2: free_blocks: got 8, original 7"),
        (lambda t: t["iterations"][2].update(preempted=[0]), "first at iteration 2: preempted"),
        (lambda t: t["iterations"][3].update(end_s=0.540002), "first at iteration 3: end_s"),
        (lambda t: t["iterations"].pop(), "an iteration more than the original's"),
        (lambda t: t["iterations"].append(t["iterations"][3]), "the original ran 1 more"),
    ],
)
def test_any_difference_is_found_and_explained(change, said, tmp_path, capsys):
    trace = tiny_trace()
    change(trace)
    code, out = run(trace, tmp_path, capsys)
    assert code == 1
    assert said in out
    assert out.splitlines()[-1].endswith("mismatches 1")


def test_a_broken_file_is_an_error_not_a_match(tmp_path, capsys):
    path = tmp_path / "bad.json.gz"
    path.write_bytes(b"\x1f\x8b broken")
    assert golden.main([str(path)]) == 2
    assert "bad.json.gz: error" in capsys.readouterr().out
