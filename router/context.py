"""Shortens a conversation so that its prompt fits into its share of the model's context.

Old reminders go first: the system messages between turns, and the texts in <system-reminder> of turns. Then
the oldest whole turns go. The system prompt, the last user message with the system messages after it, and
the last step stay, and a tool call is never separated from its results. The cut moves in steps: as long as
a conversation grows within one step, the start of its prompt stays the same, and vLLM's prefix cache still
holds it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from router.errors import ApiError
from router.prefix import edited

Json = dict[str, Any]
Message = Json
Count = Callable[[list[Message]], Awaitable[int]]

# The cut moves by this share of the budget, so that the prompt's start stays the same for several turns.
STEP = 0.25
# The items of the Responses API that hold a tool's result.
RESULTS = ("function_call_output", "custom_tool_call_output")
# What a chat template adds: a role and delimiters to every message; once, a default system message and the
# date; and a preamble if there are tools.
_TEMPLATE_MESSAGE = 16
_TEMPLATE_ONCE = 256
_TEMPLATE_TOOLS = 512
# Bytes of text per token, roughly; only the size of a step depends on it.
_BYTES_PER_TOKEN = 3.0
# A request may have this many bytes for each token of the context, and `_LEAST_BYTES` in any case. English
# and code have 3 to 5 bytes a token, JSON writes some characters as six bytes, and a conversation whose
# oldest turns will be left out may be several times too long.
_MOST_BYTES_PER_TOKEN = 64
_LEAST_BYTES = 1_000_000
_OPENS, _CLOSES = "<system-reminder>", "</system-reminder>"


@dataclass(frozen=True)
class Block:
    """Messages, by index, that stay or go together: a turn, or a tool call with its results."""

    indices: tuple[int, ...]
    kept: bool


def most_tokens(value: Any, messages: int, tools: bool) -> int:
    """An upper bound of the tokens of `value` (messages, tools, text).

    A token of a byte-level vocabulary stands for at least one byte of UTF-8, and JSON only adds bytes.
    """
    return _size(value) + messages * _TEMPLATE_MESSAGE + _TEMPLATE_ONCE + (_TEMPLATE_TOOLS if tools else 0)


def is_system(message: Message) -> bool:
    """A turn of the system's or, as OpenAI calls it now, the developer's."""
    return message.get("role") in ("system", "developer")


def is_result(message: Message) -> bool:
    """A tool's result, which belongs to the call before it (OpenAI's `tool` role, Anthropic's blocks)."""
    if message.get("role") in ("tool", "function") or message.get("type") in RESULTS:
        return True
    content = message.get("content")
    return (
        message.get("role") == "user"
        and isinstance(content, list)
        and any(isinstance(part, dict) and part.get("type") == "tool_result" for part in content)
    )


def _is_user(message: Message) -> bool:
    return message.get("role") == "user" and not is_result(message)


def _last_user(messages: Sequence[Message]) -> int:
    return max((i for i, message in enumerate(messages) if _is_user(message)), default=-1)


def blocks(messages: Sequence[Message]) -> list[Block]:
    """`messages` in order, as blocks that can only be left out as a whole, reminders apart.

    Up to the last user message a block is a turn: a user message and everything that answers it. After it,
    where an agent may have worked for a long time, a block is one step: a call with its results. System
    messages, the last user message and the last step are kept.
    """
    last_user = _last_user(messages)
    found: list[Block] = []
    current: list[int] = []

    def close() -> None:
        if current:
            found.append(Block(tuple(current), kept=False))
            current.clear()

    for i, message in enumerate(messages):
        if is_system(message):
            found.append(Block((i,), kept=True))
        elif i == last_user:
            close()
            found.append(Block((i,), kept=True))
        else:
            # A step begins where a result is followed by something else. Calls made together, which are one
            # item each in the Responses API, stay together.
            starts_step = i > last_user and not is_result(message) and _after_result(messages, current)
            if _is_user(message) or starts_step:
                close()
            current.append(i)
    if current:
        found.append(Block(tuple(current), kept=True))
    return found


def _after_result(messages: Sequence[Message], current: Sequence[int]) -> bool:
    return bool(current) and is_result(messages[current[-1]])


def cuts(messages: Sequence[Message], step_bytes: float) -> list[tuple[list[Message], int]]:
    """The conversation with more and more of its oldest reminders, then of its oldest blocks, left out, one
    entry per step, and its bytes.

    The position of a cut depends only on what comes before it, so a growing conversation is cut at the same
    places as before. The first entry leaves nothing out, the last one everything that may go.
    """
    sizes = {i: _size(message) for i, message in enumerate(messages)}
    left: dict[int, Message | None] = dict(enumerate(messages))
    steps = [(list(messages), sum(sizes.values()))]

    def leave_out(parts: Sequence[Mapping[int, Message | None]]) -> None:
        passed, threshold = 0, step_bytes
        for part in parts:
            for i, less in part.items():
                passed += sizes[i] - (size := _size(less))
                sizes[i] = size
            left.update(part)
            if passed >= threshold or part is parts[-1]:
                rest = [message for message in left.values() if message is not None]
                steps.append((rest, sum(sizes.values())))
                threshold = (passed // step_bytes + 1) * step_bytes

    leave_out([{i: less} for i, less in _without_reminders(messages).items()])
    leave_out([dict.fromkeys(block.indices) for block in blocks(messages) if not block.kept])
    return steps


def _without_reminders(messages: Sequence[Message]) -> dict[int, Message | None]:
    """By index, the messages that hold old reminders: without them, or None if nothing else is in them."""
    found: dict[int, Message | None] = {}
    last_user, last_step = _last_user(messages), blocks(messages)[-1].indices[0]
    stays = True  # at the front, and right after the last user message
    for i, message in enumerate(messages[:last_step]):
        stays = i == last_user or (stays and is_system(message))
        if i == last_user:
            continue
        if is_system(message):
            less = message if stays else None
        elif is_result(message) or message.get("role") == "user":
            less = _bare(message)
        else:
            continue
        if less != message:
            found[i] = less
    return found


def _bare(message: Message) -> Message | None:
    """A user message or a result without its reminders, or None if nothing is left of a user message."""
    bare = dict(message)
    for key in ("content", "output"):
        if key in bare:
            bare[key] = edited(bare[key], _no_reminders)
    if isinstance(bare.get("content"), list):
        bare["content"] = [
            part | {"content": edited(part["content"], _no_reminders)}
            if isinstance(part, dict) and part.get("type") == "tool_result" and "content" in part
            else part
            for part in bare["content"]
        ]
    return bare if bare.get("content") or is_result(message) else None


def _no_reminders(text: str) -> str:
    """`text` without reminders and the space around them. A regular expression would take the square of the
    time for tags that are never closed.
    """
    between, position = [], 0
    while (start := text.find(_OPENS, position)) >= 0 and (end := text.find(_CLOSES, start)) >= 0:
        between.append(text[position:start])
        position = end + len(_CLOSES)
    if not between:
        return text
    first, *others = between
    return "".join([first.rstrip(), *(part.strip() for part in others), text[position:].lstrip()])


def _size(value: Any) -> int:
    return 0 if value is None else len(orjson.dumps(value))


async def fit(
    messages: Sequence[Message], total: int, budget: int, count: Count, param: str = "messages"
) -> tuple[list[Message], int]:
    """The first cut of `messages` whose prompt has at most `budget` tokens.

    Args:
        messages: the conversation.
        total: tokens of the whole prompt, more than `budget`.
        budget: the most tokens that the prompt may have.
        count: returns the tokens of the prompt with other messages.
        param: the parameter that holds the messages.

    Returns:
        The messages, and the tokens of their prompt.

    Raises:
        ApiError: 400 `context_length_exceeded`: what must stay is too long by itself.
    """
    steps, sizes = zip(*cuts(messages, budget * STEP * _BYTES_PER_TOKEN), strict=True)
    counted = {0: total}

    async def fits(i: int) -> bool:
        if i not in counted:
            counted[i] = await count(steps[i])
        return counted[i] <= budget

    # Sizes show roughly where the first cut that fits is; the tokenizer shows it exactly.
    likely = budget * sizes[0] / total
    guess = next((i for i, size in enumerate(sizes) if size <= likely), len(steps) - 1)
    while guess > 1 and await fits(guess) and await fits(guess - 1):
        guess -= 1
    while not await fits(guess):
        guess += 1
        if guess == len(steps):
            raise too_long(counted[guess - 1], budget, param)
    return steps[guess], counted[guess]


def too_long(tokens: int, budget: int, param: str = "messages") -> ApiError:
    """400 for a prompt that cannot be made to fit, in the words by which LiteLLM and LangChain know it."""
    return ApiError(
        400,
        f"This model's maximum context length is {budget} tokens. However, your {param} resulted in {tokens} "
        f"tokens. Please reduce the length of the {param}. (The rest of the context is kept for the answer: "
        "CONTEXT_RATIO.)",
        reason="context_length",
        param=param,
        code="context_length_exceeded",
    )


def most_bytes(window: int) -> int:
    """How many bytes a request may have for a context of `window` tokens."""
    return max(_LEAST_BYTES, window * _MOST_BYTES_PER_TOKEN)


def far_too_long(window: int, size: str, param: str = "messages") -> ApiError:
    """400 for a prompt whose tokens need not be counted: `size` says how much it is."""
    return ApiError(
        400,
        f"This model's maximum context length is {window} tokens. However, your {param} resulted in far "
        f"more: {size}. Please reduce the length of the {param}.",
        reason="context_length",
        param=param,
        code="context_length_exceeded",
    )
