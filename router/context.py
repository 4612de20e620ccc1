"""Shortens a conversation so that its prompt fits into its share of the model's context.

The oldest whole turns go first. System messages, the last user message and what follows it stay, and a tool
call is never separated from its results. The cut moves in steps: as long as a conversation grows within one
step, the start of its prompt stays the same, and vLLM's prefix cache still holds it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from router.errors import ApiError

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


def _is_system(message: Message) -> bool:
    return message.get("role") in ("system", "developer")


def _is_result(message: Message) -> bool:
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
    return message.get("role") == "user" and not _is_result(message)


def blocks(messages: Sequence[Message]) -> list[Block]:
    """`messages` in order, as blocks that can only be left out as a whole.

    Up to the last user message a block is a turn: a user message and everything that answers it. After it,
    where an agent may have worked for a long time, a block is one step: a call with its results. System
    messages, the last user message and the last step are kept.
    """
    last_user = max((i for i, message in enumerate(messages) if _is_user(message)), default=-1)
    found: list[Block] = []
    current: list[int] = []

    def close() -> None:
        if current:
            found.append(Block(tuple(current), kept=False))
            current.clear()

    for i, message in enumerate(messages):
        if _is_system(message):
            found.append(Block((i,), kept=True))
        elif i == last_user:
            close()
            found.append(Block((i,), kept=True))
        else:
            # A step begins where a result is followed by something else. Calls made together, which are one
            # item each in the Responses API, stay together.
            starts_step = i > last_user and not _is_result(message) and _after_result(messages, current)
            if _is_user(message) or starts_step:
                close()
            current.append(i)
    if current:
        found.append(Block(tuple(current), kept=True))
    return found


def _after_result(messages: Sequence[Message], current: Sequence[int]) -> bool:
    return bool(current) and _is_result(messages[current[-1]])


def cuts(messages: Sequence[Message], step_bytes: float) -> list[tuple[list[Message], int]]:
    """The conversation with more and more of its oldest blocks left out, one entry per step, and its bytes.

    The position of a cut depends only on what comes before it, so a growing conversation is cut at the same
    places as before. The first entry leaves nothing out, the last one everything that may go.
    """
    droppable = [block for block in blocks(messages) if not block.kept]
    sizes = [_size(message) for message in messages]
    steps = [(list(messages), sum(sizes))]
    dropped: set[int] = set()
    passed, threshold = 0, step_bytes
    for block in droppable:
        dropped.update(block.indices)
        passed += sum(sizes[i] for i in block.indices)
        if passed >= threshold or block is droppable[-1]:
            left = [message for i, message in enumerate(messages) if i not in dropped]
            steps.append((left, sum(sizes) - passed))
            threshold = (passed // step_bytes + 1) * step_bytes
    return steps


def _size(value: Any) -> int:
    return len(orjson.dumps(value))


async def fit(
    messages: Sequence[Message], total: int, budget: int, count: Count
) -> tuple[list[Message], int]:
    """The first cut of `messages` whose prompt has at most `budget` tokens.

    Args:
        messages: the conversation.
        total: tokens of the whole prompt, more than `budget`.
        budget: the most tokens that the prompt may have.
        count: returns the tokens of the prompt with other messages.

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
            raise too_long(counted[guess - 1], budget)
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
