import pytest

from router.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from router.streams import ANNOUNCEMENTS, Content

# By API, events without content in the order in which they come, and the first of each kind with some.
STREAMS = {
    CHAT: (
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[]}}]}\n\n',
        (
            b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
            b'data: {"choices": [{"delta": {"reasoning": "a"}}]}\n\n',
            b'data: {"choices":[{"delta":{"content":null,"reasoning_content":"a"}}]}\n\n',
            b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}\n\n',
            b'data: {"choices":[{"delta":{"function_call":{"name":"f"}}}]}\n\n',
        ),
    ),
    COMPLETIONS: (
        b'data: {"choices":[{"index":0,"text":""}]}\n\n',
        (b'data: {"choices":[{"index":0,"text":"a"}]}\n\n',),
    ),
    MESSAGES: (
        b'event: message_start\ndata: {"message":{"content":[],"stop_reason":null}}\n\n'
        b'event: ping\ndata: {"type": "ping"}\n\n'
        b'event: content_block_start\ndata: {"index":0,"content_block":{"type":"text","text":""}}\n\n',
        (
            b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"a"}}\n\n',
            b'event: content_block_delta\ndata: {"delta":{"type":"thinking_delta","thinking":"a"}}\n\n',
            b'event: content_block_start\ndata: {"content_block":{"type":"tool_use","name":"f"}}\n\n',
            b'event: content_block_delta\ndata: {"delta":{"type":"input_json_delta","partial_json":"{"}}\n\n',
        ),
    ),
    RESPONSES: (
        b'event: response.created\ndata: {"response":{"instructions":"say response.output_text.delta"}}\n\n'
        b'event: response.in_progress\ndata: {"response":{}}\n\n'
        b'event: response.output_item.added\ndata: {"item":{"content":[]}}\n\n',
        (
            b'event: response.output_text.delta\ndata: {"delta":"a"}\n\n',
            b'event: response.reasoning_text.delta\ndata: {"delta":"a"}\n\n',
            b'event: response.function_call_arguments.delta\ndata: {"delta":"{"}\n\n',
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "before", "event"),
    [(path, before, event) for path, (before, events) in STREAMS.items() for event in events],
)
def test_the_answer_begins_with_its_first_content_however_the_stream_is_cut(
    path: str, before: bytes, event: bytes
) -> None:
    content = Content(path)
    assert not content.begins_in(before)
    assert content.begins_in(event)
    for cut in range(1, len(event)):
        content = Content(path)
        assert not content.begins_in(before)
        assert content.begins_in(event[:cut]) or content.begins_in(event[cut:])


def test_text_that_looks_like_an_event_begins_nothing() -> None:
    quoted = rb'data: {"choices":[{"delta":{"role":"assistant","name":"\"content\":\"a"}}]}'
    assert not Content(CHAT).begins_in(quoted)


def test_an_announcement_is_all_of_what_it_is_in() -> None:
    created = b'event: response.created\ndata: {"type":"response.created"}\n\n'
    item = b'event: response.output_item.added\ndata: {"type":"response.output_item.added"}\n\n'
    assert ANNOUNCEMENTS.fullmatch(created + created.replace(b"created", b"in_progress"))
    assert not ANNOUNCEMENTS.fullmatch(created + item)
    assert not ANNOUNCEMENTS.fullmatch(created[:-1])
