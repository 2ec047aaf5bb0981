"""What a chunk of an answer means, and what a request says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.client.protocol import PLAIN, Chunk, Features, body, read_chunk
from llmsim.client.record import Record
from tests.client.scripted import spec


def completion(text, finish=None):
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish}]}


def chat(finish=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("chunk", "token"),
    [
        (completion(" a"), True),
        (completion(" several tokens at once"), True),
        (completion(""), True),  # half of a character: a token without text yet
        (completion(" a", "length"), True),
        (completion("", "length"), False),
        (chat(role="assistant", content=""), False),
        (chat(role="assistant"), False),
        (chat(role="assistant", content="a"), True),
        (chat(content="a"), True),
        (chat(content=""), True),
        (chat(reasoning_content="hm"), True),
        (chat(tool_calls=[{"index": 0}]), True),
        (chat("stop"), False),
        (chat("stop", content=""), False),
        ({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}, False),
    ],
)
def test_which_chunks_are_token_events(chunk, token):
    assert read_chunk(json.dumps(chunk).encode()).token is token


def test_usage_may_stand_alone_or_with_the_last_choice():
    usage = {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    alone = read_chunk(json.dumps({"choices": []} | usage).encode())
    beside = read_chunk(json.dumps(completion("", "stop") | usage).encode())
    assert alone == Chunk(False, "", 3, 4)
    assert beside == Chunk(False, "stop", 3, 4)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["choices", "delta", "text", "usage", "error", "content"]), x), max_leaves=8))  # fmt: skip
def test_no_event_of_a_server_breaks_the_client(value):
    record = Record(0, 1, 1, arrival_ns=0)
    record.take(json.dumps(value).encode(), 5)
    record.end(6)
    assert record.status in ("finished", "failed")
    assert record.ok or record.reason


def test_the_first_reason_of_a_failure_counts():
    record = Record(0, 1, 1)
    record.fail("HTTP 503", "not\nnow")
    record.fail("timeout")
    record.end(9)
    assert (record.status, record.why, record.ended_ns) == ("failed", "HTTP 503: not now", 9)


def test_a_body_asks_only_for_what_the_server_takes():
    run = spec("http://a", extra_body={"temperature": 0})
    plain = json.loads(body(run, PLAIN, "of the", 7))
    assert plain == {"model": "small", "prompt": "of the", "max_tokens": 7, "stream": True, "temperature": 0}
    full = json.loads(body(run, Features(force=True, usage=True, ids=True), [1, 2], 7))
    assert full == plain | {
        "prompt": [1, 2],
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "min_tokens": 7,
    }
    talk = json.loads(body(spec("http://a", api="chat"), PLAIN, "of the", 7))
    assert talk["messages"] == [{"role": "user", "content": "of the"}]
    assert "prompt" not in talk
