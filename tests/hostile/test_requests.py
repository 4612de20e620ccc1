"""Requests that would take an engine, the router or another's answer with them, sent to the real service.

`./run test` sends the quick ones, `./run test-hostile` all, and for HOSTILE_SECONDS what hypothesis makes.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.hostile.structures import REQUESTS, Json
from tests.support.stack import Stack
from tests.support.waiting import wait_for

SECONDS = float(os.environ.get("HOSTILE_SECONDS", "600"))
BRACKETS = "(" * 100_000 + "a" + ")" * 100_000
NEST = "(" * 90 + "a" + ")" * 90


def chat(**more: Any) -> tuple[str, Json]:
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": "Go."}], "max_tokens": 4} | more


def structured(**given: Any) -> tuple[str, Json]:
    return chat(structured_outputs=given)


def text(**keywords: Any) -> Json:
    return {"type": "string", **keywords}


def required(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def doubled(levels: int, key: str) -> Json:
    steps = {f"d{i}": {key: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": steps | {f"d{levels}": text()}}


def through_objects(levels: int, key: str) -> Json:
    """Doubles at each level, where an object stands in between."""
    steps = {
        f"d{i}": {
            key: [{"type": "object", "properties": {name: {"$ref": f"#/$defs/d{i + 1}"}}} for name in "ab"]
        }
        for i in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": steps | {f"d{levels}": text()}}


def nested(levels: int) -> Json:
    schema: Json = text()
    for _ in range(levels):
        schema = {"type": "array", "items": schema, "minItems": 999, "maxItems": 1000}
    return schema


def messages(count: int, content: str) -> tuple[str, Json]:
    return chat(messages=[{"role": "user", "content": content}] * count)


QUICK = {
    "brackets in a pattern": structured(json=text(pattern=BRACKETS)),
    "brackets in a regex": structured(regex=BRACKETS),
    "brackets in a grammar": structured(grammar=f"root ::= {BRACKETS}"),
    "brackets in a namespace": (
        "/v1/responses",
        {
            "input": "Go.",
            "tools": [
                {
                    "type": "namespace",
                    "name": "n",
                    "tools": [
                        {
                            "type": "function",
                            "name": "f",
                            "parameters": required({"a": text(pattern=BRACKETS)}),
                        }
                    ],
                }
            ],
            "tool_choice": "required",
        },
    ),
    "a NUL": structured(json=text(pattern="a\0b")),
    "more properties than there may be": structured(
        json={"type": "object", "minProperties": 9, "additionalProperties": False}
    ),
    "a character without tokens": structured(choice=["n\x04"]),
    "levels of arrays": structured(json=nested(6)),
    "doubling": structured(json=doubled(40, "anyOf")),
    "padding": chat(chat_template_kwargs={"padding": "max_length", "max_length": 50_000_000}),
    "a thousand slow formats": structured(
        json=required({f"p{i}": text(format="uri", description=str(i)) for i in range(1000)})
    ),
}
SLOW = {
    "brackets in a tool": chat(
        tools=[
            {
                "type": "function",
                "function": {"name": "f", "parameters": {"properties": {"a": text(pattern=BRACKETS)}}},
            }
        ],
        tool_choice="required",
    ),
    "nested repetition": structured(regex="((a{0,99}b){0,99}c){0,10}"),
    "nested bounded repetition of anything": structured(json=text(pattern="^((.{0,300}){0,300}a)*$")),
    "the deepest brackets allowed": structured(regex=NEST),
    "a wide class": structured(regex="[" + "".join(chr(0x4E00 + 2 * i) for i in range(4000)) + "]{100}"),
    "doubling of objects, oneOf": structured(json=through_objects(30, "oneOf")),
    "doubling of objects, anyOf": structured(json=through_objects(11, "anyOf")),
    "allOf": structured(json={"allOf": [required({f"p{i}": text()}) for i in range(500)]}),
    "maxLength": structured(json=required({f"p{i}": text(maxLength=1000 + i) for i in range(300)})),
    "minItems": structured(
        json={"type": "array", "items": required({"a": text(maxLength=999)}), "minItems": 10**6}
    ),
    "patterns": structured(
        json=required({f"p{i}": text(pattern=f"^[a-z]{{{i % 50}}}.*{i}$") for i in range(1000)})
    ),
    "choices": structured(choice=[f"{i} of many" * 3 for i in range(5000)]),
    "alternatives": structured(grammar="root ::= " + " | ".join(f'"{i}" root' for i in range(4000))),
    "an ambiguous grammar": structured(grammar='root ::= root root | "a" | "aa" | ""'),
    "empty loops": structured(grammar='root ::= x*\nx ::= y*\ny ::= ""*'),
    "rules that double": structured(
        grammar="\n".join(["root ::= r0", *(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(60)), 'r60 ::= "x"'])
    ),
    "a long chain of rules": structured(
        grammar="\n".join(["root ::= r0", *(f"r{i} ::= r{i + 1}" for i in range(9000)), 'r9000 ::= "x"'])
    ),
    "left recursion": structured(grammar='root ::= root "a"'),
    "Lark that is not": structured(grammar="start: /(((/"),
    "Lark with a large repetition": structured(grammar='start: ("a"~1..100000)~1..1000'),
    "tags in tags": structured(
        structural_tag='{"type": "structural_tag", "format": '
        + '{"type": "tag", "begin": "<a>", "end": "</a>", "content": ' * 20
        + '{"type": "any_text"}'
        + "}" * 21
    ),
    "properties": structured(json={"type": "object", "properties": {f"p{i}": text() for i in range(1000)}}),
    "prefixItems": structured(
        json={"type": "array", "prefixItems": [text(maxLength=i) for i in range(2000)]}
    ),
    "ranges": structured(json={"enum": [{"a": list(range(500))}] * 20}),
    "numbers": structured(json={"type": "integer", "minimum": -(10**300), "maximum": 10**300}),
    "floats": structured(json={"type": "number", "minimum": 1e-300, "exclusiveMaximum": 1.7e308}),
    "names": structured(
        json={"type": "object", "propertyNames": text(pattern="^.{500}$"), "minProperties": 500}
    ),
    "many messages": messages(15_000, "a"),
    "one long message": messages(1, "word " * 800_000),
    "many long messages": messages(500, "x" * 8000),
    "long counting": ("/v1/messages/count_tokens", messages(1, "word " * 100_000)[1]),
    "every choice": chat(n=8, temperature=1, logprobs=True, top_logprobs=20),
    "biases": chat(logit_bias={str(i): 1 for i in range(40_000)}),
    "stops": chat(stop=["a" * 50_000] * 4),
    "bad words": chat(bad_words=[f"w{i}" for i in range(50_000)]),
    "depth": chat(metadata={"a": json.loads("[" * 90 + "]" * 90)}),
}
# What the service may answer to any of these.
ANSWERS = {200, 400, 413}


@pytest.fixture(scope="module")
def alive(stack: Stack) -> Iterator[None]:
    """The same processes serve at the end as at the start, and hold at most half as much memory again."""
    before, held = _processes(stack), _memory(stack)
    yield
    assert _processes(stack) == before
    assert _memory(stack) < 1.5 * held


def _processes(stack: Stack) -> dict[str, set[int]]:
    """Those of the engines. The router's compile what is sent, and come and go."""
    return {name: {process.pid for process in stack.processes(name)} for name in ("coder", "general")}


def _memory(stack: Stack) -> int:
    total = 0
    for process in stack.processes():
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def _post(stack: Stack, path: str, body: Json) -> httpx.Response:
    return httpx.post(
        f"{stack.url}{path}", json={"model": "coder"} | body, headers=stack.headers, timeout=600
    )


def _serves(stack: Stack) -> None:
    answer = _post(stack, *chat())
    assert answer.status_code == 200, answer.text


def _sent(stack: Stack, path: str, body: Json) -> int:
    """The status of an answer, which must be one of a service that is well."""
    answer = _post(stack, path, body)
    assert answer.status_code in ANSWERS, f"{answer.text[:1000]} {path} {str(body)[:3000]}"
    if answer.status_code == 400:
        message = answer.text
        assert "quarantined" not in message, message
        assert "Traceback" not in message and "/site-packages/" not in message, message
    return answer.status_code


@pytest.mark.usefixtures("alive")
@pytest.mark.parametrize("kind", [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_the_engines_live_on(stack: Stack, kind: str) -> None:
    status = _sent(stack, *(QUICK | SLOW)[kind])
    print(f"{kind}: {status}")
    _serves(stack)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 3600)
@pytest.mark.usefixtures("alive")
def test_structures_made_by_hypothesis(stack: Stack) -> None:
    answers: Counter[tuple[str, int]] = Counter()
    slowest = 0.0

    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(REQUESTS)
    def send(request: tuple[str, Json]) -> None:
        nonlocal slowest
        if time.monotonic() > end:
            return
        path, body = request
        started = time.monotonic()
        answers[path, _sent(stack, path, body)] += 1
        slowest = max(slowest, time.monotonic() - started)

    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        send()
        _serves(stack)
        assert {state["state"] for state in _ready(stack).values()} == {"ready"}
    print(f"{sum(answers.values())} requests, {dict(answers)}; the slowest took {slowest:.1f} s")


def _ready(stack: Stack) -> Any:
    return wait_for(lambda: httpx.get(f"{stack.url}/ready").json()["models"], "the router answers")
