"""What a request may ask of the engine's grammar compiler: limits, and how they are measured.

vLLM compiles JSON schemas, patterns and grammars in native code, in the process that serves everybody. A
pattern with 100,000 brackets overflows its stack and ends the engine; others take gigabytes or minutes. So
nothing reaches it that is larger than `Limits` allows.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

Json = dict[str, Any]


class TooComplex(ValueError):
    """A schema, pattern or grammar beyond a limit. The text continues a sentence that its name begins."""


@dataclass(frozen=True)
class Limits:
    """The most that a schema, pattern or grammar may have.

    Each is several times what public JSON schemas, MCP servers' tools and OpenAI's own limits
    (https://platform.openai.com/docs/guides/structured-outputs#supported-schemas) reach.
    """

    # Bytes as JSON; OpenAI allows 120,000 characters of names and values.
    size: int = 256_000
    # Nested objects and arrays: vLLM's own limit, and what its wrapper of a structural tag adds.
    depth: int = 64
    tag_depth: int = 80
    # Characters of one pattern, its nested brackets (the compiler recurses once for each; OpenAPI's longest
    # patterns have five), and the product of its nested repetitions.
    pattern: int = 10_000
    brackets: int = 100
    repetitions: int = 100_000
    # minLength, maxItems and the like. The compiler unrolls what it cannot count.
    bound: int = 1_000_000
    # Properties of one object: the compiler's time grows with their square (on a Xeon core 3 s for 500
    # optional ones, 11 s for 1,000).
    properties: int = 1_000
    # Entries of all `enum`, `anyOf`, `oneOf` and `allOf`, and of `choice`; OpenAI allows 1,000.
    alternatives: int = 5_000
    # All ways through nested `anyOf`, `oneOf` and `allOf`, references followed: 2 to the power of its levels
    # for one that doubles at each.
    ways: int = 5_000
    # References that lead to a reference, one after another.
    chain: int = 100
    # Bytes of all tools together.
    tools: int = 1_000_000


LIMITS = Limits()


@dataclass(frozen=True)
class Structure:
    """What the engine compiles: a value of the request's parameter `param`.

    `kind` is its name in vLLM's `structured_outputs`: json, regex, choice, grammar, structural_tag or
    whitespace_pattern.
    """

    param: str
    kind: str
    value: Any


# The types of a Structure's value, by its kind; the engine refuses any other.
_TYPES: dict[str, type | tuple[type, ...]] = {
    "json": (str, dict),
    "regex": str,
    "whitespace_pattern": str,
    "choice": list,
    "grammar": str,
    "structural_tag": (str, dict),
}
# Where a tool has its schema, in the chat, Responses and Messages APIs.
_TOOL_SCHEMAS = ("parameters", "input_schema")


def structures(body: Json) -> Iterator[Structure]:
    """What a request's body constrains the answer with."""
    for name, value in _object(body.get("structured_outputs")).items():
        if isinstance(value, _TYPES.get(name, ())):
            yield Structure(f"structured_outputs.{name}", name, value)
    yield from _of_format("response_format", body.get("response_format"))
    yield from _of_format("output_format", body.get("output_format"))
    for name in ("text", "output_config"):  # of the Responses and the Messages API
        yield from _of_format(f"{name}.format", _object(body.get(name)).get("format"))
    for name in ("tools", "functions"):
        for number, tool in enumerate(body.get(name) or ()):
            yield from _of_tool(f"{name}.{number}", _object(tool))


def _of_tool(param: str, tool: Json) -> Iterator[Structure]:
    """The schemas of a tool, or of those inside a namespace of the Responses API."""
    pending = [tool]
    while pending:
        place = pending.pop()
        for name in _TOOL_SCHEMAS:
            if isinstance(place.get(name), dict):
                yield Structure(param, "json", place[name])
        inner = place.get("tools")
        places = [place.get("function"), *(inner if isinstance(inner, list) else ())]
        pending += [each for each in places if isinstance(each, dict)]


def _of_format(param: str, given: Any) -> Iterator[Structure]:
    """A `response_format`: OpenAI's, with the schema inside or beside its type, or a structural tag."""
    given = _object(given)
    if given.get("type") == "structural_tag":
        yield Structure(param, "structural_tag", given)
    else:
        for schema in (_object(given.get("json_schema")).get("schema"), given.get("schema")):
            if isinstance(schema, dict):
                yield Structure(param, "json", schema)


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


_BOUNDS = frozenset(
    (
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "minContains",
        "maxContains",
    )
)
_BRANCHES = ("anyOf", "oneOf", "allOf")
_LISTS = (*_BRANCHES, "enum")
_REPETITION = re.compile(r"\{(\d*)(?:,(\d*))?\}")
_UNBOUNDED = 2  # as a factor: an unbounded repetition is a loop, which costs the compiler one more state


def check_schema(schema: Any, limits: Limits = LIMITS, *, depth: int | None = None) -> None:
    """Checks a JSON schema, given as an object or as its text.

    Keywords are looked for everywhere, since a `$ref` may lead anywhere.

    Raises:
        TooComplex: it exceeds a limit, or cannot be satisfied.
    """
    if isinstance(schema, str):
        _check_size(len(schema.encode(errors="replace")), limits)
        try:
            schema = orjson.loads(schema)
        except orjson.JSONDecodeError as error:
            raise TooComplex(f"is not JSON: {error}") from None
    _check_size(_bytes_of(schema), limits)
    _check_depth(schema, depth or limits.depth)
    alternatives = 0
    for part in _objects(schema):
        alternatives += sum(len(part[key]) for key in _LISTS if isinstance(part.get(key), list))
        _check_bounds(part, limits)
        for pattern in _patterns(part):
            check_pattern(pattern, limits)
    if alternatives > limits.alternatives:
        raise TooComplex(f"has {alternatives} alternatives; at most {limits.alternatives} are allowed")
    if isinstance(schema, dict):
        _Ways(schema, limits).check()


def check_pattern(pattern: str, limits: Limits = LIMITS) -> None:
    """Checks a regular expression.

    Raises:
        TooComplex: it exceeds a limit.
    """
    if len(pattern) > limits.pattern:
        raise TooComplex(f"has a pattern of {len(pattern)} characters; at most {limits.pattern} are allowed")
    if "\0" in pattern:
        raise TooComplex("has a pattern with a NUL character, which no model writes")
    depth, product = _cost(pattern)
    if depth > limits.brackets:
        raise TooComplex(f"has a pattern with {depth} nested brackets; at most {limits.brackets} are allowed")
    if product > limits.repetitions:
        raise TooComplex(
            f"has a pattern whose nested repetitions multiply to {product}; "
            f"at most {limits.repetitions} are allowed"
        )


def check_grammar(grammar: str, limits: Limits = LIMITS) -> None:
    """Checks a grammar in EBNF or Lark's notation.

    Raises:
        TooComplex: it exceeds a limit.
    """
    _check_size(len(grammar.encode(errors="replace")), limits)
    if "\0" in grammar:
        raise TooComplex("has a NUL character, which no model writes")
    depth, product = _cost(grammar)
    if depth > limits.brackets:
        raise TooComplex(f"has {depth} nested brackets; at most {limits.brackets} are allowed")
    if product > limits.repetitions:
        raise TooComplex(
            f"has nested repetitions that multiply to {product}; at most {limits.repetitions} are allowed"
        )
    if (count := grammar.count("|") + 1) > limits.alternatives:
        raise TooComplex(f"has {count} alternatives; at most {limits.alternatives} are allowed")


def check_tools(tools: list[Any], limits: Limits = LIMITS) -> None:
    """Checks the depth and size of all tools together. Each one's schema is for `check_schema`.

    Raises:
        TooComplex: they exceed a limit.
    """
    if (size := _bytes_of(tools)) > limits.tools:
        raise TooComplex(f"has {size} bytes; at most {limits.tools} are allowed")
    _check_depth(tools, limits.tag_depth)


def check_choice(choice: list[Any], limits: Limits = LIMITS) -> None:
    """Checks a list of answers to choose from.

    Raises:
        TooComplex: it exceeds a limit.
    """
    if len(choice) > limits.alternatives:
        raise TooComplex(f"has {len(choice)} alternatives; at most {limits.alternatives} are allowed")
    _check_size(_bytes_of(choice), limits)


def check_tag(tag: Any, limits: Limits = LIMITS) -> None:
    """Checks vLLM's `structural_tag`: JSON in which schemas, patterns and grammars stand inside tags.

    Raises:
        TooComplex: it exceeds a limit.
    """
    check_schema(tag, limits, depth=limits.tag_depth)
    if isinstance(tag, str):
        tag = orjson.loads(tag)
    for part in _objects(tag):
        for key in ("grammar", "ebnf"):
            if isinstance(part.get(key), str):
                check_grammar(part[key], limits)
        if isinstance(part.get("regex"), str):
            check_pattern(part["regex"], limits)


def _bytes_of(value: Any) -> int:
    try:
        return len(orjson.dumps(value))
    except orjson.JSONEncodeError:
        raise TooComplex("is nested too deeply") from None


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.size:
        raise TooComplex(f"has {size} bytes; at most {limits.size} are allowed")


def _check_depth(value: Any, most: int) -> None:
    level, depth = [value], 0
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        if depth > most:
            raise TooComplex(f"is nested too deeply; at most {most} levels are allowed")
        level = [child for part in level for child in (part.values() if isinstance(part, dict) else part)]


def _objects(value: Any) -> Iterator[Json]:
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            yield part
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)


def _patterns(part: Json) -> Iterator[str]:
    if isinstance(part.get("pattern"), str):
        yield part["pattern"]
    if isinstance(part.get("patternProperties"), dict):
        yield from part["patternProperties"]


def _check_bounds(part: Json, limits: Limits) -> None:
    for key in _BOUNDS & part.keys():
        value = part[key]
        if isinstance(value, int | float) and value > limits.bound:
            raise TooComplex(f"has {key} {value}; at most {limits.bound} is allowed")
    for what in ("Length", "Items", "Properties", "Contains"):
        least, most = part.get(f"min{what}"), part.get(f"max{what}")
        if isinstance(least, int) and isinstance(most, int) and least > most:
            raise TooComplex(f"cannot be satisfied: min{what} {least} is above max{what} {most}")
    least, known = part.get("minProperties"), part.get("properties")
    if isinstance(known, dict) and len(known) > limits.properties:
        raise TooComplex(
            f"has {len(known)} properties in one object; at most {limits.properties} are allowed"
        )
    closed = part.get("additionalProperties") is False and "patternProperties" not in part
    if isinstance(least, int) and closed and least > len(known if isinstance(known, dict) else ()):
        raise TooComplex(f"cannot be satisfied: minProperties {least} is above the number of properties")


def _cost(text: str) -> tuple[int, int]:
    """The nested brackets of a pattern or grammar, and the largest product of nested repetitions."""
    depth = deepest = position = 0
    # For each open bracket, the largest product of what is inside it so far; at the end, of the whole text.
    products = [1]
    last = 1  # the product of the latest item, to which a repetition applies
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\":
            position += 1
            last = 1
        elif character == "[":
            position = _end_of_class(text, position)
            last = 1
        elif character == "(":
            depth += 1
            deepest = max(deepest, depth)
            products.append(1)
        elif character == ")" and depth:
            depth -= 1
            last = products.pop()
            products[-1] = max(products[-1], last)
        elif character in "*+":
            last *= _UNBOUNDED
            products[-1] = max(products[-1], last)
        elif character == "{" and (found := _REPETITION.match(text, position - 1)):
            position = found.end()
            # Only the number's length matters where it is too long to be read.
            least, most = (int(part[:12]) if part else 0 for part in (found[1], found[2] or ""))
            last *= max(least, most, 1)
            products[-1] = max(products[-1], last)
        else:
            last = 1
    return deepest, max(products)


def _end_of_class(text: str, position: int) -> int:
    """Where the character class ends that begins before `position`."""
    if text[position : position + 1] == "^":
        position += 1
    if text[position : position + 1] == "]":
        position += 1
    while position < len(text) and text[position] != "]":
        position += 2 if text[position] == "\\" else 1
    return position + 1


class _Ways:
    """The number of ways through the alternatives of a schema, references followed."""

    def __init__(self, root: Json, limits: Limits) -> None:
        self._root = root
        self._limits = limits
        self._known: dict[int, int] = {}
        self._open: set[int] = set()

    def check(self) -> None:
        """Raises TooComplex if there are too many, or if a reference leads back to itself without a property
        or an item in between: then there is no end to them.
        """
        for part in _objects(self._root):
            if self._count(part, 0) > self._limits.ways:
                raise TooComplex(
                    "has too many combinations of anyOf, oneOf and allOf; "
                    f"at most {self._limits.ways} are allowed"
                )

    def _count(self, part: Any, chain: int) -> int:
        if not isinstance(part, dict):
            return 1
        if id(part) in self._known:
            return self._known[id(part)]
        if id(part) in self._open:
            raise TooComplex("has a $ref that leads back to itself without a property or an item in between")
        if chain > self._limits.chain:
            raise TooComplex(f"has too long a chain of $ref; at most {self._limits.chain} are allowed")
        self._open.add(id(part))
        ways = 1
        for key in _BRANCHES:
            if isinstance(part.get(key), list):
                ways *= max(1, sum(self._count(branch, chain + 1) for branch in part[key]))
        if isinstance(part.get("$ref"), str):
            ways *= self._count(self._target(part["$ref"]), chain + 1)
        self._open.discard(id(part))
        self._known[id(part)] = min(ways, self._limits.ways + 1)
        return self._known[id(part)]

    def _target(self, reference: str) -> Any:
        """What a reference inside the document leads to; None for any other."""
        if not reference.startswith("#"):
            return None
        found: Any = self._root
        for name in reference[1:].split("/")[1:]:
            name = name.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                return None
        return found
