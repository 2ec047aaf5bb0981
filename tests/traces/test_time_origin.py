"""A run's clock begins with the first row that is sent, whatever the file's own zero was; keep_clock keeps that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.errors import ConfigError, LlmsimError
from llmsim.traces.lengths import LengthsSpec
from llmsim.traces.readers import read_trace
from llmsim.traces.workload import ArrivalsSpec, ClassSpec, WorkloadSpec, build_workload
from tests.traces.test_trace_stream import agree

SECONDS = (0, 0.25, 0.25, 1.5, 40)


def _json(key: str, scale: int, **more: object) -> Callable[[float], str]:
    def text(offset: float) -> str:
        lengths = {"input_length": 5, "output_length": 6}
        return "".join(json.dumps({key: (offset + t) * scale, **lengths, **more}) + "\n" for t in SECONDS)

    return text


def _csv(header: str, cells: str, scale: int = 1) -> Callable[[float], str]:
    return lambda offset: "\n".join([header, *(cells.format((offset + t) * scale) for t in SECONDS)]) + "\n"


FORMATS = {
    "burstgpt": _csv("Timestamp,Model,Request tokens,Response tokens", "{},x,5,6"),
    "sarathi": _csv("arrived_at,num_prefill_tokens,num_decode_tokens", "{},5,6"),
    "own, s": _csv("arrival_s,prompt_tokens,output_tokens", "{},5,6"),
    "own, ms": _csv("arrival_ms,prompt_tokens,output_tokens", "{},5,6", 1000),
    "mooncake": _json("timestamp", 1000, hash_ids=[1]),
    "bailian": _json("timestamp", 1, chat_id=7),
    "guidellm": _json("timestamp", 1),
    "unix": lambda offset: FORMATS["sarathi"](1_700_000_000 + offset),
}
SPECS: dict[str, dict[str, object]] = {
    "rows": {},
    "some": {"num_requests": 3},
    "slower": {"time_scale": 2.5},
    "stretched": {"arrivals": ArrivalsSpec(kind="trace", rate=3)},
    "resampled": {"lengths": LengthsSpec(kind="resampled")},
    "shuffled": {"shuffle": True},
    "sorted": {"sort": True},
    "drawn lengths": {"lengths": LengthsSpec(prompt=9, output="uniform:2-20")},
}


@pytest.mark.parametrize("options", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("text", FORMATS.values(), ids=FORMATS)
def test_the_files_own_zero_changes_nothing(
    write: Callable[..., Path], text: Callable[[float], str], options: dict[str, object]
) -> None:
    early, late = (WorkloadSpec(trace=str(write(text(at), f"{at}.x")), **options) for at in (0, 862_919))  # type: ignore[arg-type]
    agree(early)
    agree(late)
    one, other = build_workload(early, 3), build_workload(late, 3)
    assert other.first_arrival_ns == 0
    assert one.arrival_ns.tolist() == other.arrival_ns.tolist()
    told = [note for note in other.description.get("notes", ()) if "862,919 s" in note]
    shifted = other.description["trace"].get("shifted_s")
    assert (len(told), shifted) == ((0, None) if text is FORMATS["unix"] else (1, 862_919.0))


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_any_offset_is_taken_off_to_the_nanosecond(
    tmp_path_factory: pytest.TempPathFactory, offset: int, gaps: list[int]
) -> None:
    times = [offset + sum(gaps[:i]) for i in range(len(gaps))]
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_text("arrival_ns,prompt_tokens,output_tokens\n" + "".join(f"{t},3,2\n" for t in times))
    own = build_workload(WorkloadSpec(trace=str(path), keep_clock=True), 1).arrival_ns
    assert own.tolist() == times
    assert build_workload(WorkloadSpec(trace=str(path)), 1).arrival_ns.tolist() == [t - offset for t in times]
    assert read_trace(path).requests["arrival_ns"].tolist() == times, "a table keeps the file's times"


def test_rows_that_are_left_out_are_not_the_zero(write: Callable[..., Path]) -> None:
    head = "arrival_s,prompt_tokens,output_tokens\n"
    bad = str(write(head + "50,x,1\n60,5,1\n61,5,1\n", "bad.csv"))
    assert agree(WorkloadSpec(trace=bad, on_bad="drop")).last_arrival_ns == 10**9
    long = str(write(head + "50,900,1\n60,5,1\n61,5,1\n", "long.csv"))
    assert agree(WorkloadSpec(trace=long, on_long="drop"), 100).last_arrival_ns == 10**9
    failed = str(write("Timestamp,Request tokens,Response tokens\n50,5,0\n60,5,1\n61,5,1\n", "failed.csv"))
    assert agree(WorkloadSpec(trace=failed)).last_arrival_ns == 10**9
    unordered = str(write(head + "61,5,1\n60,5,1\n", "unordered.csv"))
    assert agree(WorkloadSpec(trace=unordered, sort=True)).last_arrival_ns == 10**9
    models = str(write("arrival_s,prompt_tokens,output_tokens,model\n50,900,1,a\n60,5,1,b\n61,5,1,a\n", "models.csv"))
    by_model = build_workload(WorkloadSpec(trace=models, on_long="drop"), 1, {"a": 100, "b": 1000})
    assert by_model.arrival_ns.tolist() == [0, 10**9]


REFUSED = {
    "another process": ({"arrivals": ArrivalsSpec(kind="poisson", rate=2)}, "arrivals are poisson"),
    "no trace": ({"trace": None}, "names none"),
    "twin": ({"trace": "azure-conv"}, "is a twin"),
    "no flag": ({"keep_clock": "yes"}, "must be true or false"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_a_clock_that_there_is_not_cannot_be_kept(
    write: Callable[..., Path], options: dict[str, object], words: str
) -> None:
    given = {"trace": str(write(FORMATS["own, s"](5))), "keep_clock": True, **options}
    with pytest.raises(ConfigError, match=words):
        build_workload(WorkloadSpec(**given), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [FORMATS["unix"](0), "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,5,6\n"],
    ids=["unix", "date-times"],
)
def test_absolute_times_have_no_clock_to_keep(write: Callable[..., Path], text: str) -> None:
    with pytest.raises(LlmsimError, match="keep_clock keeps times since a start"):
        build_workload(WorkloadSpec(trace=str(write(text)), keep_clock=True), 1)
    assert agree(WorkloadSpec(trace=str(write(text)), keep_clock=True))[0] is ConfigError


def test_drawn_arrivals_count_from_zero() -> None:
    drawn = WorkloadSpec(lengths=LengthsSpec(prompt=9, output=2), arrivals=ArrivalsSpec(kind="poisson", rate=2),
                         num_requests=5, classes=(ClassSpec(),))  # fmt: skip
    assert build_workload(drawn, 1).first_arrival_ns > 0, "the first gap is a gap, too"
