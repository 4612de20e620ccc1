from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.measure.sse import Event, Parser

STREAM = (
    b"\xef\xbb\xbf: comment\n\n"
    b'data: {"text": "na\xc3\xafve \xf0\x9f\x8e\x89"}\n\n'
    b"event: error\r\ndata:first\r\ndata: second\r\n\r\n"
    b"event: nothing\n\n"
    b"id: 7\rdata: with CR\r\r"
    b"data: [DONE]\n\n"
    b"data: never finished\n"
)
EVENTS = [
    Event('{"text": "naïve 🎉"}'),
    Event("first\nsecond", "error"),
    Event("with CR"),
    Event("[DONE]"),
]


def test_whole_stream_in_one_read() -> None:
    assert Parser().feed(STREAM) == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
def test_pieces_of_any_size(size: int) -> None:
    parser = Parser()
    found = [e for i in range(0, len(STREAM), size) for e in parser.feed(STREAM[i : i + size])]
    assert found == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_cuts_anywhere(cuts: list[int]) -> None:
    parser = Parser()
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(places)]
    assert [e for piece in pieces for e in parser.feed(piece)] == EVENTS


def test_an_event_is_given_by_the_read_that_completes_it() -> None:
    parser = Parser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\ndata: b\n\nda") == [Event("a"), Event("b")]
