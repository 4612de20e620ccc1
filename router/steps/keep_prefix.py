"""Keeps the start of a conversation's prompt the same from turn to turn, for vLLM's prefix cache."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from router.chat_families import ChatFamily
from router.context import is_result, is_system
from router.exchange import Exchange
from router.paths import CHAT, COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES
from router.prefix import Rule, edited, joined, reminder, text_of

Json = dict[str, Any]
# Where each API has its turns, and its system prompt beside them.
_TURNS = {
    CHAT: "messages",
    MESSAGES: "messages",
    COUNT_TOKENS: "messages",
    RESPONSES: "input",
    INPUT_TOKENS: "input",
}
_HEADS = ("system", "instructions")
_THINKING_KEYS = ("reasoning", "reasoning_content")
_THINKING_PARTS = ("thinking", "redacted_thinking")
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)
_MOST_CLIENTS, _MOST_TOOLS = 1_000, 1_000


class KeepPrefix:
    """Takes out or moves what changes per request (config/prefix.yaml), leaves system turns in the middle of
    a conversation where they stand, and puts tools into the order in which their client first sent them.
    Thinking leaves the history where the family's template will take it out later, and change the prompt.
    """

    def __init__(self, families: Mapping[str, ChatFamily | None], rules: Sequence[Rule]) -> None:
        """`families` are the models' ones, by alias."""
        self._in_place = {alias: bool(family and family.inline_system) for alias, family in families.items()}
        self._drops = {alias: bool(family and family.drops_thinking) for alias, family in families.items()}
        self._template = {alias: family.template if family else {} for alias, family in families.items()}
        self._rules = rules
        self._tools = ToolOrder()

    def __call__(self, exchange: Exchange) -> None:
        body, key = exchange.body, _TURNS.get(exchange.path)
        if key is None:
            return
        if template := self._template[exchange.alias]:
            body["chat_template_kwargs"] = {**template, **body.get("chat_template_kwargs", {})}
        if isinstance(body.get("tools"), list):
            body["tools"] = self._tools.sorted((exchange.client, exchange.alias), body["tools"])
        if isinstance(body[key], str):
            moved = self._clean(exchange, [])[1]
            if moved:
                body[key] = joined(body[key], [reminder(moved)], "input_text")
            return
        turns, moved = self._clean(exchange, body[key])
        if self._drops[exchange.alias]:
            turns = list(_without_thinking(turns))
        kind = "input_text" if key == "input" else "text"
        turns = _as_system(body, turns) if self._in_place[exchange.alias] else _as_user_text(turns, kind)
        if moved:
            turns = _at_the_end(turns, [reminder(moved)], kind)
        body[key] = turns

    def _clean(self, exchange: Exchange, turns: list[Json]) -> tuple[list[Json], str]:
        """The turns without what the rules take out, and what of it belongs at the end."""
        # By rule: of a text that is moved, only the latest is true.
        moved: dict[str, str] = {}

        def without(text: str, where: str) -> str:
            for rule in self._rules:
                if rule.where == where and (found := rule.pattern.findall(text)):
                    text = rule.pattern.sub("", text)
                    if rule.moved:
                        moved[rule.name] = "\n".join(dict.fromkeys(one.strip() for one in found))
                    else:
                        exchange.ignore(rule.name)
            return text

        body = exchange.body
        for name in _HEADS:
            if name in body:
                body[name] = edited(body[name], lambda text: without(text, "front"))
                if not body[name]:
                    del body[name]
        kept = []
        for turn in turns:
            if is_system(turn) or turn.get("role") == "user":
                where = "front" if is_system(turn) else "user"
                content = edited(turn.get("content"), lambda text, where=where: without(text, where))  # type: ignore[misc]
                if not content and turn.get("content"):
                    continue
                turn = turn if content == turn.get("content") else turn | {"content": content}
            kept.append(turn)
        if moved:
            exchange.headers["x-duoserve-moved"] = ", ".join(moved)
        return kept, "\n".join(_bare(text) for text in moved.values())


def _without_thinking(turns: Iterable[Json]) -> Iterable[Json]:
    """The turns without what the assistant thought, in each API's form."""
    for turn in turns:
        if turn.get("type") == "reasoning":
            continue
        if turn.get("role") == "assistant":
            turn = {name: value for name, value in turn.items() if name not in _THINKING_KEYS}
            content = turn.get("content")
            if isinstance(content, str):
                turn["content"] = _THOUGHT.sub("", content)
            elif isinstance(content, list):
                turn["content"] = [part for part in content if not _is_thinking(part)]
                if not turn["content"]:
                    continue
        yield turn


def _is_thinking(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _THINKING_PARTS


def _bare(text: str) -> str:
    """`text` outside of a reminder's tags."""
    return re.sub(r"</?system-reminder>", "", text).strip()


class ToolOrder:
    """The order in which each client first sent its tools. Clients that connect to several MCP servers send
    them in the order in which those answered; and a new tool goes to the end, behind what is cached.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], dict[int, int]] = OrderedDict()

    def sorted(self, client: tuple[str, str], tools: list[Json]) -> list[Json]:
        """`tools` in the order of `client`. Tools without a name stay in front."""
        seen = self._seen.setdefault(client, {})
        self._seen.move_to_end(client)
        if len(self._seen) > _MOST_CLIENTS:
            self._seen.popitem(last=False)
        for tool in tools:
            seen.setdefault(_name(tool), len(seen))
        ordered = sorted(tools, key=lambda tool: seen[_name(tool)])
        if len(seen) > _MOST_TOOLS:
            seen.clear()
        return ordered


def _name(tool: Json) -> int:
    """The hash of a tool's name, which may be long."""
    inner = tool.get("function") or tool.get("custom") or tool
    return hash(str(inner.get("name") or "") if isinstance(inner, dict) else "")


def _split(turns: Sequence[Json]) -> tuple[list[Json], list[Json]]:
    """The system turns at the front, and the rest."""
    first = next((i for i, turn in enumerate(turns) if not is_system(turn)), len(turns))
    return list(turns[:first]), list(turns[first:])


def _together(turns: Iterable[Json]) -> str:
    return "\n\n".join(filter(None, (text_of(turn.get("content")) for turn in turns)))


def _as_system(body: Json, turns: list[Json]) -> list[Json]:
    """For templates that take a system turn anywhere. vLLM moves all to the front if one is a developer's."""
    front, rest = _split(turns)
    if not any(turn.get("role") == "developer" for turn in rest):
        return turns
    rest = [turn | {"role": "system"} if is_system(turn) else turn for turn in rest]
    if not any(turn.get("role") == "developer" for turn in front):
        return front + rest
    if "input" in body:
        body["instructions"] = "\n\n".join(filter(None, (body.get("instructions"), _together(front))))
        return rest
    return [{"role": "system", "content": _together(front)}, *rest]


def _as_user_text(turns: list[Json], kind: str) -> list[Json]:
    """For the other templates: a system turn in the middle becomes text of the turn before it, if that is a
    user's or a tool's result; else of the next one; else a user turn by itself.
    """
    front, rest = _split(turns)
    if len(front) > 1 and all(turn["role"] == "system" for turn in front):
        front = [{"role": "system", "content": _together(front)}]
    done: list[Json] = []
    after: list[str] = []  # texts for the end of the latest turn
    waiting: list[str] = []
    for turn in rest:
        if is_system(turn):
            if text := text_of(turn.get("content")):
                takes = done and not waiting and _takes_text(done[-1])
                (after if takes else waiting).append(reminder(text))
            continue
        if after:
            done[-1], after = _with_text(done[-1], after, kind), []
        if waiting and _takes_text(turn):
            turn, waiting = _with_text(turn, ["\n".join(waiting)], kind, first=True), []
        done.append(turn)
    if after:
        done[-1] = _with_text(done[-1], after, kind)
    if waiting:
        done.append({"role": "user", "content": "\n".join(waiting)})
    return front + done


def _at_the_end(turns: list[Json], texts: Sequence[str], kind: str) -> list[Json]:
    """`turns` with `texts` in the last one that is a user's or a tool's result."""
    for i in range(len(turns) - 1, -1, -1):
        if _takes_text(turns[i]):
            return [*turns[:i], _with_text(turns[i], texts, kind), *turns[i + 1 :]]
    return turns


def _takes_text(turn: Json) -> bool:
    return turn.get("role") == "user" or is_result(turn)


def _with_text(turn: Json, texts: Sequence[str], kind: str, *, first: bool = False) -> Json:
    """`turn` with `texts` in it: in its result, if it has one, so that no user turn appears among an agent's
    steps, since templates leave out the thinking before a user turn.
    """
    if "output" in turn:
        return turn | {"output": joined(turn["output"], texts, kind, first=first)}
    content = turn.get("content")
    if isinstance(content, list):
        results = [i for i, part in enumerate(content) if _is_result_part(part)]
        if results and results[-1] == len(content) - 1:
            at = results[0 if first else -1]
            inner = joined(content[at].get("content"), texts, "text", first=first)
            return turn | {"content": [*content[:at], content[at] | {"content": inner}, *content[at + 1 :]]}
    return turn | {"content": joined(content, texts, kind, first=first)}


def _is_result_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "tool_result"
