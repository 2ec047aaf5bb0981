"""Server-sent events out of bytes: however they are cut, the same events come out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.client.sse import SseDecoder

LINES = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)), max_size=12)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def decode(pieces: list[bytes]) -> list[bytes]:
    decoder = SseDecoder()
    return [data for piece in pieces for data in decoder.feed(piece)] + decoder.finish()


@given(st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=6), ENDS, st.data())
def test_events_do_not_depend_on_how_the_bytes_are_cut(events, end, data):
    stream = b"".join(b"".join(b"data: " + line.encode() + end for line in lines) + end for lines in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    wanted = [b"\n".join(line.encode() for line in lines) for lines in events]
    assert decode(pieces) == wanted


@given(st.binary(max_size=200), st.data())
def test_any_bytes_are_decoded_the_same_in_one_piece_or_in_single_bytes(stream, data):
    assert decode([stream]) == decode([stream[i : i + 1] for i in range(len(stream))])


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b": ping\n\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 7\nretry: 10\ndata:a\n\n", [b"a"]),
        (b"data:  two spaces\n\n", [b" two spaces"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: [DONE]", [b"a", b"[DONE]"]),
        (b"data: a\n\ndata: [DONE]\n", [b"a", b"[DONE]"]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_what_the_specification_says_of_comments_fields_and_ends(stream, events):
    assert decode([stream]) == events


def test_an_event_is_given_as_soon_as_its_blank_line_is_there():
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\n\r") == [b"a"]
    assert decoder.feed(b"\ndata: b\n\nda") == [b"b"]
