"""JSON schemas in the part of the language that constrains an answer: xgrammar's.

vLLM refuses a schema with anything else. Only the constraint goes: the answer may break a rule that was left
out, and the client is told which.
"""

from typing import Any

Json = dict[str, Any]

# vLLM's has_xgrammar_unsupported_json_features, as of 0.32.
_FORMATS = frozenset(
    (
        "email",
        "date",
        "time",
        "date-time",
        "duration",
        "ipv4",
        "ipv6",
        "hostname",
        "uuid",
        "uri",
        "uri-reference",
        "uri-template",
        "json-pointer",
        "relative-json-pointer",
    )
)
_OF_NUMBERS = ("multipleOf",)
_OF_ARRAYS = ("uniqueItems", "contains", "minContains", "maxContains")
_LENGTHS = ("minLength", "maxLength")


def relaxed(schema: Any) -> tuple[Any, set[str]]:
    """`schema` without the keywords that xgrammar lacks, and those keywords."""
    lost: set[str] = set()
    return _relaxed(schema, lost), lost


def _relaxed(value: Any, lost: set[str]) -> Any:
    if isinstance(value, list):
        return [_relaxed(item, lost) for item in value]
    if not isinstance(value, dict):
        return value
    missing = _unsupported(value)
    lost |= missing
    return {key: _relaxed(item, lost) for key, item in value.items() if key not in missing}


def _unsupported(schema: Json) -> set[str]:
    kind = schema.get("type")
    kinds = {kind} if isinstance(kind, str) else set(map(str, kind)) if isinstance(kind, list) else set()
    found: set[str] = set()
    if kinds & {"integer", "number"}:
        found.update(_OF_NUMBERS)
    if "array" in kinds:
        found.update(_OF_ARRAYS)
    if "string" in kinds:
        if "format" in schema and str(schema["format"]) not in _FORMATS:
            found.add("format")
        if "pattern" in schema or ("format" in schema and "format" not in found):
            found.update(_LENGTHS)
    if "object" in kinds:
        found |= _of_objects(schema)
    if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1:
        found.add("allOf")
    return found & schema.keys()


def _of_objects(schema: Json) -> set[str]:
    found: set[str] = set()
    patterns = schema.get("patternProperties")
    if isinstance(patterns, dict) and ("properties" in schema or len(patterns) > 1):
        found.add("patternProperties")
    names = schema.get("propertyNames")
    bounded = (
        isinstance(names, dict) and names.keys() & {"pattern", "format"} and names.keys() & set(_LENGTHS)
    )
    beside = schema.keys() & {"patternProperties", "properties"}
    if "propertyNames" in schema and (
        bounded or beside or schema.get("unevaluatedProperties", True) is not True
    ):
        found.add("propertyNames")
    return found
