"""What a client may constrain an answer with, made by hypothesis: some of it right, some absurdly large."""

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Json = dict[str, Any]

_NAMES = st.sampled_from(["a", "b", "name", "", "$ref", "type", "ü", 'q"', "\\", "{}", "\n"]) | st.text(
    max_size=6
)
_NUMBERS = st.integers(-3, 20) | st.sampled_from(
    [100, 999, 1000, 5000, 65_535, 10**6, 10**7, 2**31, 2**63, 10**30, -1, 0.5, 1e300, -1e-300]
)


def _some(**parts: SearchStrategy[Any]) -> SearchStrategy[Json]:
    """An object with any of `parts`."""
    return st.fixed_dictionaries({}, optional=parts)


_ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "ü",
        "大",
        ".",
        r"\.",
        r"\d",
        r"\w",
        r"\s",
        r"\S",
        r"\b",
        "^",
        "$",
        "[a-z]",
        r'[^"\\]',
        "[一-龠]",
        "[]",
        "[^]",
    ]
    + [
        "[z-a]",
        "[[:alpha:]]",
        r"\p{L}",
        r"\u0041",
        r"\x41",
        r"\1",
        "(?i)",
        "(?=a)",
        "(?<!a)",
        "(?:)",
        "|",
        "||",
        "()",
        "\\",
        '"',
    ]
)
_REPEATS = st.sampled_from(
    [
        "",
        "",
        "",
        "*",
        "+",
        "?",
        "*?",
        "{3}",
        "{0,}",
        "{1,300}",
        "{1000}",
        "{9,3}",
        "{,5}",
        "{99999}",
        "**",
        "{",
    ]
)
PATTERNS: SearchStrategy[str] = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5).map("".join),
        st.tuples(inner, _REPEATS).map(lambda part: f"({part[0]}){part[1]}"),
        st.tuples(inner, _REPEATS).map("".join),
        st.lists(inner, min_size=2, max_size=30).map(lambda parts: f"({'|'.join(parts)})"),
    ),
    max_leaves=25,
)

_FORMATS = st.sampled_from(
    ["email", "date", "date-time", "uuid", "uri", "ipv6", "hostname", "duration", "regex", "x"]
)
_REFERENCES = st.sampled_from(
    [
        "#",
        "#/$defs/a",
        "#/$defs/b",
        "#/$defs/a/properties/a",
        "#/properties/a",
        "#/$defs/none",
        "other.json",
        "#a",
        "",
    ]
)
_LEAVES = st.one_of(
    _some(minLength=_NUMBERS, maxLength=_NUMBERS, pattern=PATTERNS, format=_FORMATS).map(
        lambda s: {"type": "string"} | s
    ),
    _some(minimum=_NUMBERS, maximum=_NUMBERS, exclusiveMinimum=_NUMBERS, multipleOf=_NUMBERS).map(
        lambda s: {"type": "integer"} | s
    ),
    _some(minimum=_NUMBERS, maximum=_NUMBERS).map(lambda s: {"type": "number"} | s),
    st.lists(st.none() | st.booleans() | _NUMBERS | _NAMES, max_size=40).map(lambda values: {"enum": values}),
    _NAMES.map(lambda value: {"const": value}),
    _REFERENCES.map(lambda reference: {"$ref": reference}),
    st.sampled_from([{}, {"type": "null"}, {"type": ["string", "null"]}, {"type": "x"}, {"not": {}}]),
    st.booleans(),
)


def _objects(inner: SearchStrategy[Any]) -> SearchStrategy[Json]:
    return _some(
        properties=st.dictionaries(_NAMES, inner, max_size=6),
        required=st.lists(_NAMES, max_size=3),
        additionalProperties=inner,
        patternProperties=st.dictionaries(PATTERNS, inner, max_size=2),
        propertyNames=inner,
        minProperties=_NUMBERS,
        maxProperties=_NUMBERS,
    ).map(lambda schema: {"type": "object"} | schema)


def _arrays(inner: SearchStrategy[Any]) -> SearchStrategy[Json]:
    return _some(
        items=inner,
        prefixItems=st.lists(inner, max_size=5),
        minItems=_NUMBERS,
        maxItems=_NUMBERS,
        uniqueItems=st.booleans(),
        contains=inner,
    ).map(lambda schema: {"type": "array"} | schema)


def _branches(inner: SearchStrategy[Any]) -> SearchStrategy[Json]:
    kinds = st.sampled_from(["anyOf", "oneOf", "allOf"])
    return st.tuples(kinds, st.lists(inner, max_size=8)).map(lambda pair: {pair[0]: pair[1]})


_INNER = st.recursive(
    _LEAVES, lambda inner: st.one_of(_objects(inner), _arrays(inner), _branches(inner)), max_leaves=25
)
SCHEMAS: SearchStrategy[Json] = st.builds(
    lambda schema, a, b, wide: (
        (schema if isinstance(schema, dict) else {"items": schema})
        | {"$defs": {"a": a, "b": b}}
        | ({"properties": {f"p{i}": a for i in range(wide)}} if wide else {})
    ),
    _INNER,
    _INNER,
    _INNER,
    st.sampled_from([0, 0, 0, 0, 20, 300]),
)

_RULES = st.sampled_from(["root", "x", "y", "start", "nowhere", "_z"])
_TERMS: SearchStrategy[str] = st.recursive(
    _RULES
    | PATTERNS.map(lambda p: f"/{p}/")
    | st.sampled_from(['"a"', '""', "[a-z]", "[^\\n]", '"\\u0000"', "'", "EOF", "%"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(" ".join),
        st.tuples(inner, _REPEATS).map(lambda part: f"({part[0]}){part[1]}"),
        st.lists(inner, min_size=2, max_size=20).map(" | ".join),
    ),
    max_leaves=15,
)


def _grammar(rules: list[tuple[str, str]], sign: str) -> str:
    return "\n".join(f"{name} {sign} {term}" for name, term in rules)


GRAMMARS = st.builds(
    _grammar,
    st.lists(st.tuples(_RULES, _TERMS), max_size=6).map(
        lambda rules: [("root", "x"), ("start", "x"), *rules]
    ),
    st.sampled_from(["::=", ":"]),
)
CHOICES = st.lists(_NAMES, max_size=200)
_CONTENTS = st.one_of(
    SCHEMAS.map(lambda schema: {"type": "json_schema", "json_schema": schema}),
    PATTERNS.map(lambda pattern: {"type": "regex", "pattern": pattern}),
    GRAMMARS.map(lambda grammar: {"type": "grammar", "grammar": grammar}),
    _NAMES.map(lambda value: {"type": "const_string", "value": value}),
    st.just({"type": "any_text"}),
)
_TAGS = st.builds(
    lambda begin, content, end: {"type": "tag", "begin": begin, "content": content, "end": end},
    _NAMES,
    _CONTENTS,
    _NAMES,
)
TAGS = st.one_of(
    st.builds(
        lambda tags, triggers: {"type": "triggered_tags", "tags": tags, "triggers": triggers},
        st.lists(_TAGS, max_size=4),
        st.lists(_NAMES, max_size=3),
    ),
    st.lists(_CONTENTS | _TAGS, max_size=5).map(lambda parts: {"type": "sequence", "elements": parts}),
    st.lists(_CONTENTS | _TAGS, max_size=5).map(lambda parts: {"type": "or", "elements": parts}),
    _CONTENTS,
).map(lambda form: {"type": "structural_tag", "format": form})

_CHAT: Json = {"messages": [{"role": "user", "content": "Go."}], "max_tokens": 4}


def _tool(schema: Json) -> Json:
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


def _format(schema: Json) -> Json:
    return {"type": "json_schema", "name": "n", "schema": schema}


# Path and body of a request.
REQUESTS: SearchStrategy[tuple[str, Json]] = st.one_of(
    st.one_of(
        SCHEMAS.map(lambda value: {"json": value}),
        SCHEMAS.map(lambda value: {"json": json.dumps(value)}),
        PATTERNS.map(lambda value: {"regex": value}),
        GRAMMARS.map(lambda value: {"grammar": value}),
        CHOICES.map(lambda value: {"choice": value}),
        TAGS.map(lambda value: {"structural_tag": json.dumps(value)}),
    ).map(lambda given: ("/v1/chat/completions", _CHAT | {"structured_outputs": given})),
    SCHEMAS.map(
        lambda schema: (
            "/v1/chat/completions",
            _CHAT
            | {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}},
        )
    ),
    st.tuples(st.lists(SCHEMAS, min_size=1, max_size=3), st.sampled_from(["auto", "required"])).map(
        lambda given: (
            "/v1/chat/completions",
            _CHAT | {"tools": [_tool(schema) for schema in given[0]], "tool_choice": given[1]},
        )
    ),
    SCHEMAS.map(
        lambda schema: (
            "/v1/responses",
            {"input": "Go.", "max_output_tokens": 4, "text": {"format": _format(schema)}},
        )
    ),
    SCHEMAS.map(lambda schema: ("/v1/messages", _CHAT | {"tools": [{"name": "f", "input_schema": schema}]})),
)
