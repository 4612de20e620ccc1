"""Titles of conversations, written by the model that has answered."""

import re

from ui.conversation import Conversation, Message, propose_title
from ui.router_client import ChatRequest

_ASK = (
    "Write a title for this conversation: at most six words, in the language of the question. "
    "Answer with the title only."
)
_TOKENS = 32
_LONGEST = 80  # characters; a model that writes more has not written a title
_BEFORE = re.compile(r"[\s\"'“”„«»*_#`]*(?:title\s*:)?[\s\"'“”„«»*_#`]*", re.IGNORECASE)
_AFTER = " \"'“”„«»*_`."


def wanted(conversation: Conversation) -> bool:
    """Whether its first answer has just come, and nobody has given it a name."""
    messages = conversation.messages
    if len(messages) != 2 or conversation.versions(1).others:
        return False
    question, answer = messages
    return bool(
        answer.text and answer.ending == "complete" and conversation.title == propose_title(question.text)
    )


def request(conversation: Conversation, user: str, pictures: bool = False) -> ChatRequest:
    """Asks for a title. It begins like the conversation, which the engine has cached, and so costs little."""
    return ChatRequest(
        model=conversation.options.model,
        messages=[*conversation.prompt(pictures), {"role": "user", "content": _ASK}],
        temperature=None,
        top_p=None,
        max_tokens=_TOKENS,
        user=user,
        think=not conversation.messages[-1].reasoning,
        last=True,
    )


def read(answer: Message) -> str:
    """The title in the model's answer; empty if it wrote something else."""
    lines = [line for line in answer.text.splitlines() if line.strip()]
    if answer.ending != "complete" or len(lines) != 1:
        return ""
    title = _BEFORE.sub("", " ".join(lines[0].split()), count=1).rstrip(_AFTER)
    return title if len(title) <= _LONGEST else ""
