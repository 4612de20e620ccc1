"""Recent prompts as hashes, to say where a conversation's prompt departs from the one before it.

No text is kept. Places are estimates: characters, in proportion to the tokens that the engine counted for the
prompt before. vLLM's own blocks are hashes of tokens, which only the engine knows.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import orjson

from router.context import is_result, is_system

Json = dict[str, Any]
# A client and an alias.
Key = tuple[str, str]
_BLOCK = 64  # characters, about the 16 tokens of vLLM's block
_MOST_PROMPTS = 64  # of one key
_MOST_BLOCKS = 4_000_000  # of all prompts: 32 MB
_PART_BLOCKS = 40  # what a part takes besides its own: 320 bytes
# A prompt continues one that it has more than this share of, by turns.
_SAME_CONVERSATION = 0.5
# What is not worth a word: a tenth of the prompt before, or this many tokens. Engines of hybrid models keep
# blocks of up to a thousand tokens, and not the last one.
_SMALL_SHARE = 0.1
_SMALL_CHANGE, _SMALL_EVICTION = 256, 2048
# The fields of a turn whose text a model is shown. Others, such as ids and cache_control, may change at will.
_SHOWN = (
    *("name", "thinking", "reasoning_content", "reasoning", "summary", "text", "refusal", "content"),
    *("tool_calls", "function", "arguments", "input", "output"),
)
_REMINDER = "<system-reminder>"
_SYSTEM, _TOOLS = "system prompt", "tool definitions"
_HEAD = (_SYSTEM, _TOOLS)
EVICTED, OTHER_ENGINE, LEFT_OUT = "evicted", "another engine", "older turns left out"


class Part:
    """A turn, a tool or a system prompt."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.length = len(text)  # characters
        self.digest = hash(text)
        # By this a turn is known again without the reminder that moves on to the next one.
        self.turn = hash(text.partition(_REMINDER)[0].rstrip() or text)
        self.text = text
        self.blocks: array[int] = array("q")

    def forget_text(self) -> None:
        """Keep block hashes in place of the text."""
        self.blocks, self.text = _blocks(self.text), ""


@dataclass(eq=False)
class Prompt:
    """The prompt of a request, as it is sent to an engine."""

    parts: list[Part]
    turns: int  # with those that were left out
    left_out: int = 0
    engine: int = 1
    tokens: int = 0  # as the engine counted, once it has

    @classmethod
    def of(cls, body: Json, left_out: int = 0, engine: int = 1) -> "Prompt":
        """The prompt of a chat, messages or responses request, of which `left_out` turns were cut off."""
        turns = body.get("messages", body.get("input"))
        count = len(turns) if isinstance(turns, list) else 1
        return cls([Part(*part) for part in _parts(body)], count + left_out, left_out, engine)

    @property
    def length(self) -> int:
        """Characters."""
        return sum(part.length for part in self.parts)

    def size(self) -> int:
        """The memory it takes, in blocks of 8 bytes."""
        return _PART_BLOCKS + sum(_PART_BLOCKS + len(part.blocks) for part in self.parts)


@dataclass(frozen=True)
class Loss:
    """What an engine reads again although it read it in the turn before, in tokens."""

    reason: str
    should: int  # the prompt before, all of which could be in the cache
    cached: int
    total: int
    place: int = 0  # where the prompts part

    @property
    def again(self) -> int:
        """Tokens that are read again."""
        return max(0, self.should - self.cached)

    def __str__(self) -> str:
        if self.reason == EVICTED:
            why = "no longer in the engine's cache"
        elif self.reason == OTHER_ENGINE:
            why = "another engine answers than before"
        else:
            why = f"prefix changed at token {self.place:,} ({self.reason})"
        return f"{self.cached:,} of {self.total:,} tokens; {why}"


class RecentPrompts:
    """The latest prompts of each client's conversations."""

    def __init__(self) -> None:
        self._recent: OrderedDict[Key, list[Prompt]] = OrderedDict()
        self._blocks = 0

    def before(self, key: Key, prompt: Prompt) -> Prompt | None:
        """The prompt of the turn before, or None if `prompt` begins a conversation."""
        turns = {part.turn for part in prompt.parts if part.kind not in _HEAD}
        likeliest, most = None, _SAME_CONVERSATION
        for old in reversed(self._recent.get(key, ())):
            if old.turns > prompt.turns:
                continue  # a new conversation, or one that its client has shortened
            if _common(old, prompt) == len(old.parts):
                return old
            again = [part.turn in turns for part in old.parts if part.kind not in _HEAD]
            share = sum(again) / len(again) if again else 0.0
            if share > most:
                likeliest, most = old, share
        return likeliest

    def remember(self, key: Key, prompt: Prompt, tokens: int, before: Prompt | None) -> None:
        """Keep `prompt`, of which an engine has read `tokens`, in place of the one before it."""
        prompt.tokens = tokens
        known = {part.digest: part for part in before.parts} if before else {}
        prompt.parts = [known.get(part.digest, part) for part in prompt.parts]
        for part in prompt.parts:
            if part.text:
                part.forget_text()
        prompts = self._recent.setdefault(key, [])
        self._recent.move_to_end(key)
        if before in prompts:
            self._forget(prompts, prompts.index(before))
        prompts.append(prompt)
        self._blocks += prompt.size()
        if len(prompts) > _MOST_PROMPTS:
            self._forget(prompts, 0)
        while self._blocks > _MOST_BLOCKS:
            oldest, prompts = next(iter(self._recent.items()))
            self._forget(prompts, 0)
            if not prompts:
                del self._recent[oldest]

    def _forget(self, prompts: list[Prompt], index: int) -> None:
        self._blocks -= prompts.pop(index).size()


def expected_loss(before: Prompt, prompt: Prompt) -> Loss | None:
    """What an engine will have to read again of `prompt`, estimated; None if hardly anything."""
    ratio = before.tokens / max(1, before.length)
    total = round(prompt.length * ratio)
    if before.engine != prompt.engine:
        loss = Loss(OTHER_ENGINE, before.tokens, 0, total)
        return loss if _matters(loss, _SMALL_CHANGE) else None
    same = _common(before, prompt)
    if same == len(before.parts):
        return None
    old, new = before.parts[same], prompt.parts[same] if same < len(prompt.parts) else None
    kind = new.kind if new else old.kind
    if prompt.left_out > before.left_out and kind not in _HEAD:
        kind = LEFT_OUT
    character = sum(part.length for part in before.parts[:same])
    if new:
        pairs = zip(old.blocks, _blocks(new.text), strict=False)
        character += sum(_BLOCK for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    place = min(round(character * ratio), total)
    loss = Loss(kind, before.tokens, place, total, place)
    return loss if _matters(loss, _SMALL_CHANGE) else None


def true_loss(before: Prompt, expected: Loss | None, cached: int, total: int) -> Loss | None:
    """What an engine has read again, by its own count; None if hardly anything."""
    if expected:
        loss = Loss(expected.reason, before.tokens, cached, total, expected.place)
        return loss if _matters(loss, _SMALL_CHANGE) else None
    loss = Loss(EVICTED, before.tokens, cached, total)
    return loss if _matters(loss, _SMALL_EVICTION) else None


def _matters(loss: Loss, least: int) -> bool:
    return loss.again >= least and loss.again > loss.should * _SMALL_SHARE


def _common(one: Prompt, two: Prompt) -> int:
    """How many parts both begin with."""
    pairs = zip(one.parts, two.parts, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0].digest == pair[1].digest, pairs))


def _blocks(text: str) -> "array[int]":
    return array("q", (hash(text[i : i + _BLOCK]) for i in range(0, len(text), _BLOCK)))


def _parts(body: Json) -> Iterator[tuple[str, str]]:
    """What a prompt consists of, in the order of most templates, each with its text."""
    turns = body.get("messages", body.get("input"))
    turns = turns if isinstance(turns, list) else [{"role": "user", "content": turns}]
    first = next((i for i, turn in enumerate(turns) if not is_system(turn)), len(turns))
    for head in (body.get("system"), body.get("instructions"), *turns[:first]):
        if head:
            yield _SYSTEM, _text(head)
    for tool in body.get("tools") or []:
        yield _TOOLS, orjson.dumps(tool).decode()
    for turn in turns[first:]:
        yield _kind(turn), _text(turn)


def _kind(turn: Json) -> str:
    if is_result(turn):
        return "tool result"
    if is_system(turn):
        return "system turn"
    return "user turn" if turn.get("role") == "user" else "assistant turn"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    if not isinstance(value, dict):
        return "" if value is None else str(value)
    shown = [_field(key, value[key]) for key in _SHOWN if key in value]
    # An image, for example: its data say nothing about its tokens.
    return "\n".join(shown) if shown else str(hash(orjson.dumps(value)))


def _field(key: str, value: Any) -> str:
    if key == "input" and isinstance(value, dict):
        return orjson.dumps(value).decode()
    return _text(value)
