from functools import reduce
from typing import Any

import pytest

from router.errors import ApiError
from router.exchange import Exchange
from router.paths import CHAT, MESSAGES, RESPONSES
from router.steps.check_structured import check_structured

Json = dict[str, Any]
BRACKETS = "(" * 100_000 + "a" + ")" * 100_000
CHAIN = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(5000)}


def text(**keywords: Any) -> Json:
    return {"type": "string", **keywords}


def doubled(levels: int) -> Any:
    return reduce(lambda schema, _: {"anyOf": [schema, schema]}, range(levels), text())


def nested(levels: int) -> Json:
    schema: Json = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def doubling_references(levels: int) -> Json:
    steps = {f"d{i}": {"oneOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": steps | {f"d{levels}": text()}}


def refusal(body: Json, path: str = CHAT) -> ApiError:
    with pytest.raises(ApiError) as caught:
        check_structured(Exchange(path, body=body))
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (text(pattern=BRACKETS), "200001 characters"),
        (text(pattern="(" * 500 + ")" * 500), "500 nested brackets"),
        (text(pattern="((a{1,99}b){99}c){99}"), "multiply to 970299"),
        (text(pattern="(a{99}|b{1000}){1,1000}"), "multiply to 1000000"),
        (text(pattern="a{" + "9" * 5000 + "}"), "multiply"),
        (text(pattern="a\0b"), "NUL"),
        ({"patternProperties": {BRACKETS: {}}}, "characters"),
        ({"properties": {"deep": {"items": text(pattern=BRACKETS)}}}, "characters"),
        ({"$ref": "#/default", "default": text(pattern=BRACKETS)}, "characters"),
        (nested(70), "at most 64 levels"),
        (nested(5000), "nested too deeply"),
        (doubled(14), "bytes"),
        (doubling_references(30), "combinations"),
        ({"$ref": "#"}, "leads back to itself"),
        (
            {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}},
            "back",
        ),
        ({"$ref": "#/$defs/d0", "$defs": CHAIN}, "too long a chain"),
        ({"enum": [str(i) for i in range(6000)]}, "6000 alternatives"),
        ({"properties": {f"p{i}": text() for i in range(1001)}}, "1001 properties"),
        ({"type": "array", "minItems": 10_000_000}, "minItems 10000000"),
        (text(maxLength=1e12), "maxLength"),
        (text(minLength=3, maxLength=2), "cannot be satisfied"),
        ({"type": "object", "minProperties": 2, "additionalProperties": False}, "minProperties 2"),
        (text(description="x" * 300_000), "bytes"),
    ],
    ids=range(23),
)
def test_a_schema_beyond_a_limit(schema: Json, words: str) -> None:
    for body, path, param in (
        ({"structured_outputs": {"json": schema}}, CHAT, "structured_outputs.json"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}},
            CHAT,
            "response_format",
        ),
        ({"tools": [{"type": "function", "function": {"parameters": schema}}]}, CHAT, "tools.0"),
        ({"tools": [{"type": "function", "parameters": schema}]}, RESPONSES, "tools.0"),
        (
            {"tools": [{"type": "namespace", "tools": [{"type": "function", "parameters": schema}]}]},
            RESPONSES,
            "tools.0",
        ),
        ({"functions": [{"name": "f", "parameters": schema}]}, CHAT, "functions.0"),
        ({"output_format": {"type": "json_schema", "schema": schema}}, MESSAGES, "output_format"),
        ({"tools": [{}, {"input_schema": schema}]}, MESSAGES, "tools.1"),
        ({"text": {"format": {"type": "json_schema", "schema": schema}}}, RESPONSES, "text.format"),
        ({"output_config": {"format": {"schema": schema}}}, MESSAGES, "output_config.format"),
    ):
        error = refusal(body, path)
        assert error.param in (param, param.partition(".")[0])
        assert words in error.message


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("json", '{"type": "string", "pattern": "' + BRACKETS + '"}'),
        ("json", "["),
        ("json", "[" * 100_000),
        ("regex", BRACKETS),
        ("regex", "(a{1000}){1000}"),
        ("grammar", "root ::= " + BRACKETS),
        ("grammar", 'root ::= (("a"{1000}){1000}){10}'),
        ("grammar", "root ::= " + " | ".join(['"a"'] * 6000)),
        ("choice", ["a"] * 6000),
        ("choice", ["a" * 300_000]),
        ("structural_tag", {"format": {"type": "regex", "pattern": BRACKETS}}),
        ("structural_tag", '{"format": {"type": "grammar", "grammar": "root ::= ' + BRACKETS + '"}}'),
        ("whitespace_pattern", BRACKETS),
    ],
    ids=range(13),
)
def test_other_structures_beyond_a_limit(kind: str, value: Any) -> None:
    error = refusal({"structured_outputs": {kind: value}})
    assert error.param == f"structured_outputs.{kind}"
    assert len(error.message) < 300


def test_all_tools_together_have_a_limit() -> None:
    tool = {"input_schema": {"description": "x" * 200_000}}
    assert refusal({"tools": [tool] * 6}, MESSAGES).param == "tools"


def test_what_real_clients_send() -> None:
    tree = {
        "$defs": {"node": {"type": "object", "properties": {"children": {"items": {"$ref": "#/$defs/node"}}}}}
    }
    for schema in (
        tree | {"$ref": "#/$defs/node"},
        {"properties": {"pattern": text(), "enum": {"type": "array"}, "minLength": {"type": "integer"}}},
        {"properties": {f"field_{i}": text(maxLength=65_535) for i in range(300)}},
        {"enum": [f"ISO-{i}" for i in range(1000)]},
        {"oneOf": [{"properties": {"kind": {"const": i}, "sub": doubled(4)}} for i in range(100)]},
        text(pattern=r"^((25[0-5]|(2[0-4]|1\d|[1-9]|)\d)\.?\b){4}$"),
        text(pattern=r"^[\w.!#$%&'*+/=?^`{|}~-]+@[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9]{1,63})*$"),
        text(pattern=r"^[(\[]{1,3}\(\)[^]()]*$"),
        text(pattern="^.{1,65535}$"),
        {"type": "array", "items": nested(25), "minItems": 1, "maxItems": 1000},
    ):
        check_structured(Exchange(CHAT, body={"structured_outputs": {"json": schema}}))
        check_structured(Exchange(MESSAGES, body={"tools": [{"input_schema": schema}] * 9}))
    grammar = 'root ::= expr\nexpr ::= term (("+" | "-") term)*\nterm ::= [0-9]+ | "(" expr ")"'
    check_structured(Exchange(CHAT, body={"structured_outputs": {"grammar": grammar}}))
    check_structured(Exchange(CHAT, body={"structured_outputs": {"json_object": True, "choice": None}}))
    check_structured(Exchange(CHAT, body={"response_format": {"type": "json_object"}, "tools": []}))
