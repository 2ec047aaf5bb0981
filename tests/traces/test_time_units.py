"""What unit a file's times are in: told by its fields, then by what they would mean; what is odd is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llmsim.errors import TraceError
from llmsim.traces.readers import read_trace
from llmsim.traces.stats import trace_stats
from llmsim.traces.workload import ArrivalsSpec, WorkloadSpec, build_workload
from tests.command import typed
from tests.traces.test_trace_stream import agree

Write = Callable[..., Path]


def lines(times: Sequence[object], **more: object) -> str:
    return "".join(json.dumps({"timestamp": t, "input_length": 5, "output_length": 6, **more}) + "\n" for t in times)


TOLD = {
    "fractions": (lines([0.0, 0.53, 2.5]), "guidellm", 2.5),
    "fractions later": (lines([0, 1, 2.5, 9]), "guidellm", 9),
    "slow fractions": (lines([0.5, 30.25, 90.5]), "guidellm", 90),
    "whole seconds": (lines([0, 0, 1, 2, 2, 3]), "guidellm", 3),
    "Unix seconds": (lines([1_700_000_000, 1_700_000_004]), "guidellm", 4),
    "milliseconds": (lines([0, 250, 900, 2100]), "mooncake", 2.1),
    "fast milliseconds": (lines([0, 2, 4, 9]), "mooncake", 0.009),
    "Unix milliseconds": (lines([1_700_000_000_000, 1_700_000_000_250]), "mooncake", 0.25),
    "hash_ids": (lines([0, 0.5, 2], hash_ids=[1]), "mooncake", 0.002),
    "chat_id": (lines([0, 1, 2], chat_id=1), "bailian", 2),
    "no times": ('{"input_length": 5, "output_length": 6}\n', "mooncake", 0),
    "CSV": ("timestamp,input_length,output_length\n0.5,5,6\n1.75,5,6\n", "guidellm", 1.25),
}
NAMED = {"hash_ids", "chat_id", "no times"}


@pytest.mark.parametrize("case", TOLD)
def test_a_format_is_told_by_fields_then_by_its_times(write: Write, case: str) -> None:
    text, format, span_s = TOLD[case]
    path = write(text, "t.jsonl")
    trace = read_trace(path)
    assert (trace.format, trace.span_s) == (format, span_s)
    said = [note for note in trace_stats(trace).get("notes", ()) if "--format" in note]
    assert len(said) == (0 if case in NAMED else 1), "a format that only the times tell is named, with the other one"
    if trace.has_arrivals:
        agree(WorkloadSpec(trace=str(path)))
        for chosen in ("mooncake",) if case == "Unix milliseconds" else ("guidellm", "mooncake"):
            notes = build_workload(WorkloadSpec(trace=str(path), format=chosen), 1).description.get("notes", ())
            assert not any("--format" in note for note in notes), "who gave the format is not told of it"


def test_unix_times_in_a_finer_unit_are_refused_with_the_remedy(write: Write) -> None:
    with pytest.raises(TraceError, match="--time-unit ms"):
        read_trace(write(lines([1_700_000_000_000], chat_id=1), "t.jsonl"))


ODD = {
    "Unix seconds as ms": (lines([1_700_000_000, 1_700_005_000], hash_ids=[1]), {}, "look like Unix times in s"),
    "seconds as ms": (lines([0, 1, 2, 3], hash_ids=[1]), {}, "1,333 requests a second; .*--time-unit s "),
    "ms as us": ("arrival_us,prompt_tokens,output_tokens\n0,5,6\n900,5,6\n", {}, "2,222 .*--time-unit ms "),
    "us as ns": ("arrival_ns,prompt_tokens,output_tokens\n0,5,6\n900,5,6\n", {}, "--time-unit us "),
    "ms as s": (lines([0, 9_000_000], chat_id=1), {}, "one request in 1,250 hours; .*--time-unit ms "),
    "us as ms": (lines([0, 9_000_000_000], hash_ids=[1]), {}, "--time-unit us "),
    "given": (lines([0, 9_000_000], hash_ids=[1]), {"time_unit": "s"}, "--time-unit ms "),
    "too many": ("arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,6\n0.0001,5,6\n", {}, "time_scale=F"),
    "sparse dates": ("arrival_at,prompt_tokens,output_tokens\n2024-01-01,5,6\n2024-01-09,5,6\n", {}, "hours; if the"),
}


@pytest.mark.parametrize(("text", "options", "words"), ODD.values(), ids=ODD)
def test_times_that_make_no_sense_are_told_with_the_remedy(
    write: Write, text: str, options: dict[str, str], words: str
) -> None:
    spec = WorkloadSpec(trace=str(write(text, "t.x")), **options)  # type: ignore[arg-type]
    agree(spec)
    notes = build_workload(spec, 1).description["notes"]
    assert sum(bool(re.search(words, note)) for note in notes) == 1, notes
    trace = read_trace(spec.trace or "", **options)  # type: ignore[arg-type]
    said = {note for note in trace_stats(trace)["notes"] if "prefix cache" not in note}
    assert said
    assert said <= set(notes), "trace stats says the same"


PLAIN = {
    "one a second": lines([0, 1000, 2000], hash_ids=[1]),
    "1,000 a second": lines([0, 1, 2, 4], hash_ids=[1]),
    "one an hour": lines([0, 3600 * 1000, 7200 * 1000], hash_ids=[1]),
    "one row": lines([5], hash_ids=[1]),
    "all at once": lines([0, 0, 0], hash_ids=[1]),
    "a late slice, s": "Timestamp,Request tokens,Response tokens\n0,5,6\n1,5,6\n",
}


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN)
def test_times_that_make_sense_pass_in_silence(write: Write, text: str) -> None:
    assert "notes" not in build_workload(WorkloadSpec(trace=str(write(text, "t.x"))), 1).description


def test_a_rate_makes_the_unit_one_and_the_same(write: Write) -> None:
    path = str(write(ODD["seconds as ms"][0], "t.jsonl"))
    for arrivals in (ArrivalsSpec(kind="trace", rate=2), ArrivalsSpec(kind="poisson", rate=2)):
        assert "notes" not in build_workload(WorkloadSpec(trace=path, arrivals=arrivals), 1).description


RUN = "--calibration a100/llama-3-8b --scheduler vllm_v1 --progress none"
COMMANDS = {
    "trace stats": "trace stats {}",
    "trace convert": "trace convert {} --out {}.parquet",
    "trace synth": "trace synth {} --out {}.csv",
    "simulate": f"simulate --trace {{}} {RUN}",
    "stream": f"simulate --trace {{}} {RUN} --stream",
    "capacity": f"capacity --trace {{}} {RUN} --find replicas --slo e2el:100000 --seeds 1",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_says_it_and_its_remedy_works(
    write: Write, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    path = write(lines([0, 1, 2, 3], hash_ids=[1]), "t.jsonl")
    words = command.replace("{}", str(path)).split()
    said = typed(capfd, *words)
    assert "give --time-unit s " in said.stderr, said.stderr
    assert said.returncode == 0
    mended = typed(capfd, *words, "--time-unit", "s")
    assert "--time-unit" not in mended.stderr
