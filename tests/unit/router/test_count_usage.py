import orjson

from router.layers.count_usage import without_usage

CONTENT = b'data: {"choices":[{"delta":{"content":"\\"choices\\":[] and usage"}}]}'
USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
DONE = b"data: [DONE]"


def test_only_the_usage_event_goes() -> None:
    part = b"\n\n".join([CONTENT, USAGE, DONE, b""])
    assert without_usage(part) == b"\n\n".join([CONTENT, DONE, b""])


def test_text_that_looks_like_it_stays() -> None:
    part = (
        b"data: "
        + orjson.dumps({"choices": [{"delta": {"content": 'data: {"choices":[],"usage":{}}'}}]})
        + b"\n\n"
    )
    assert without_usage(part) == part


def test_usage_alone_leaves_nothing() -> None:
    assert without_usage(USAGE + b"\n\n") == b""
