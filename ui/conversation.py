"""Conversations: their messages, what can be done to them, and the format they are stored and exported in."""

import json
import re
import secrets
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from openai.types.chat import ChatCompletionContentPartParam, ChatCompletionMessageParam
from pydantic import BaseModel, Field, ValidationError

FORMAT = (
    1  # of stored and exported conversations; raise it with every change that an older app could not read
)
TITLE_LENGTH = 48
_FENCE = re.compile(r"^(`{3,})", re.MULTILINE)
_MARKDOWN = re.compile(r"[`*#>]+")


class NotAConversation(ValueError):
    """The data is not a conversation; the message tells people why."""


class Attachment(BaseModel):
    """A file that belongs to a question: text, or a picture."""

    name: str
    text: str
    encoding: str = ""  # that the file was in, unless that is UTF-8
    picture: str = ""  # a data URL

    def as_prompt(self) -> str:
        """The file as the model reads it: its name, and its text in a fence longer than any inside."""
        longest = max((len(fence) for fence in _FENCE.findall(self.text)), default=2)
        fence = "`" * max(3, longest + 1)
        return f"File `{self.name}`:\n{fence}\n{self.text.rstrip()}\n{fence}"


class Versions(BaseModel):
    """What a conversation has in other versions from one place on, after an edit or a regeneration."""

    others: list["list[Message]"] = []  # each with all that followed it
    at: int = 0  # where among them the version that is shown belongs

    @property
    def count(self) -> int:
        """The number of versions, with the one that is shown."""
        return len(self.others) + 1


class Message(BaseModel):
    """A question, or the answer to the question before it."""

    role: Literal["user", "assistant"]
    text: str = ""
    attachments: list[Attachment] = []
    following: Versions = Field(default_factory=Versions)  # of what comes after it
    # The rest belongs to answers.
    reasoning: str = ""
    model: str = ""
    ending: Literal["complete", "length", "stopped", "failed"] = "complete"
    failure: str = ""  # why it failed, for people
    failure_kind: str = ""
    retry_at: float = 0.0  # Unix time before which a retry makes no sense
    ttft: float | None = None  # seconds from sending to the first token
    seconds: float | None = None  # from the first token to the last
    prompt_tokens: int = 0
    completion_tokens: int = 0
    beside: "Message | None" = None  # what a second model answered, to be compared
    vote: Literal["", "this", "beside", "tie", "neither"] = ""  # which of the two is better
    left_out: int = 0  # the number of oldest messages that did not fit into the prompt
    left_out_tokens: int = 0

    def as_prompt(self) -> str:
        """The message as the model reads it: attachments first, then the question."""
        files = [attached.as_prompt() for attached in self.attachments if not attached.picture]
        return "\n\n".join([*files, self.text]).strip()

    def as_content(self, pictures: bool) -> str | list[ChatCompletionContentPartParam]:
        """The message for the chat completions API, with pictures or only with their names."""
        seen = [attached for attached in self.attachments if attached.picture]
        if not seen or not pictures:
            named = [f"(A picture, “{attached.name}”, was left out.)" for attached in seen]
            return "\n\n".join([*named, self.as_prompt()]).strip()
        parts: list[ChatCompletionContentPartParam] = [
            {"type": "image_url", "image_url": {"url": attached.picture}} for attached in seen
        ]
        return [*parts, {"type": "text", "text": self.as_prompt()}]

    @property
    def chosen(self) -> "Message":
        """The answer with which the conversation goes on: of two, the better one."""
        return self.beside if self.beside and self.vote == "beside" else self

    @property
    def both(self) -> "list[Message]":
        """The message, and what a second model answered."""
        return [self, self.beside] if self.beside else [self]

    @property
    def tokens_per_second(self) -> float | None:
        """Decoding speed: the tokens after the first, over the time they took."""
        if not self.seconds or self.completion_tokens < 2:
            return None
        return (self.completion_tokens - 1) / self.seconds


class Options(BaseModel):
    """How questions of a conversation are answered; the limits are those of the chat completions API."""

    model: str = ""
    rival: str = ""  # a second model that answers too
    system: str = ""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None  # None: as the model is served
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=16, le=32768)] = 2048


def _now() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    """An identifier that nobody can guess."""
    return secrets.token_hex(8)


class Conversation(BaseModel):
    """Questions and answers in turn. A question without an answer was not answered, or is waiting for it."""

    format: Literal[1] = 1
    id: str = Field(default_factory=new_id, pattern=r"^[0-9a-z]{1,40}$")
    # Changes with every save, so that two tabs notice when both changed the same conversation.
    revision: str = ""
    title: str = ""
    pinned: bool = False
    folder: str = ""
    updated: datetime = Field(default_factory=_now)
    options: Options = Field(default_factory=Options)
    first: Versions = Field(default_factory=Versions)  # of the first message
    messages: list[Message] = []
    answering: str = ""  # id of the answer that was running when this was saved

    @property
    def name(self) -> str:
        """The title, or what stands in for one."""
        return self.title or "New conversation"

    def ask(self, text: str, attachments: Iterable[Attachment] = ()) -> None:
        """Add a question; the first one proposes the title."""
        self.messages.append(Message(role="user", text=text, attachments=list(attachments)))
        if not self.title:
            names = [attached.name for attached in self.messages[-1].attachments]
            self.title = propose_title(text or ", ".join(names))
        self.updated = _now()

    def answered(self, answer: Message) -> None:
        """Put `answer` after the last question, in place of an earlier answer to it."""
        if self.messages and self.messages[-1].role == "assistant":
            self.messages.pop()
        self.messages.append(answer)
        self.updated = _now()

    def versions(self, index: int) -> Versions:
        """The versions of the message at `index`, which may be the one that is to come."""
        return self.messages[index - 1].following if index else self.first

    def show_version(self, index: int, number: int) -> None:
        """Show version `number`, from 0, of the message at `index`, and what followed that."""
        versions = self.versions(index)
        shown = self.messages[index:]
        del self.messages[index:]
        if number == versions.at:
            self.messages += shown
            return
        versions.others.insert(versions.at, shown)
        self.messages += versions.others.pop(number)
        versions.at = number
        self.updated = _now()

    def _begin_version(self, index: int) -> None:
        """Make room for another version of the message at `index`; this one is kept."""
        versions = self.versions(index)
        versions.others.insert(versions.at, self.messages[index:])
        versions.at = len(versions.others)
        del self.messages[index:]

    def edit(self, index: int, text: str, attached: Collection[str] = ()) -> None:
        """Begin another version of the question at `index`: `text`, with those of its attachments named."""
        attachments = [each for each in self.messages[index].attachments if each.name in attached]
        self._begin_version(index)
        self.messages.append(Message(role="user", text=text, attachments=attachments))
        self.updated = _now()

    def begin_answer(self) -> None:
        """Begin another answer to the last question. An answer with text stays as an earlier version."""
        if self.messages and self.messages[-1].role == "assistant":
            if any(each.text for each in self.messages[-1].both):
                self._begin_version(len(self.messages) - 1)
            else:
                self.messages.pop()

    def delete_turn(self, index: int) -> None:
        """Drop the turn that the message at `index` belongs to: the question and its answer."""
        first = index - 1 if self.messages[index].role == "assistant" and index else index
        after = first + 1
        while after < len(self.messages) and self.messages[after].role == "assistant":
            after += 1
        # The place now has the versions of the turn and of what followed it.
        versions, following = self.versions(first), self.messages[after - 1].following
        versions.others[versions.at : versions.at] = following.others
        versions.at += following.at
        del self.messages[first:after]
        self.updated = _now()

    def prompt(self, pictures: bool = False) -> list[ChatCompletionMessageParam]:
        """The messages as the chat completions API takes them; answers without text are left out.

        `pictures` says whether the model takes them.
        """
        prompt: list[ChatCompletionMessageParam] = []
        if self.options.system.strip():
            prompt.append({"role": "system", "content": self.options.system})
        for message in self.messages:
            if message.role == "user":
                prompt.append({"role": "user", "content": message.as_content(pictures)})
            elif text := message.chosen.text:
                prompt.append({"role": "assistant", "content": text})
        return prompt

    @property
    def context_tokens(self) -> int:
        """Tokens in the conversation, as the engine counted them for the last answer; 0 if unknown."""
        for message in reversed(self.messages):
            if message.prompt_tokens:
                return message.prompt_tokens + message.completion_tokens + message.left_out_tokens
        return 0

    def first_kept(self) -> int | None:
        """Index of the oldest message in the prompt of the last answer, if older ones were left out."""
        for index in range(len(self.messages) - 1, -1, -1):
            answer = self.messages[index]
            if answer.role != "assistant" or not answer.prompt_tokens:
                continue
            sent = [
                at
                for at, message in enumerate(self.messages[:index])
                if message.role == "user" or message.text
            ]
            return sent[answer.left_out] if 0 < answer.left_out < len(sent) else None
        return None

    def as_markdown(self) -> str:
        """The conversation as a document for people to read."""
        parts = [f"# {self.name}"]
        if self.options.system.strip():
            parts.append(f"> {self.options.system.strip()}".replace("\n", "\n> "))
        for message in (each for turn in self.messages for each in turn.both):
            parts.append("## Question" if message.role == "user" else f"## Answer ({message.model})")
            parts += [f"(Picture: {each.name})" for each in message.attachments if each.picture]
            parts.append(message.as_prompt())
            if message.ending != "complete":
                parts.append(
                    {"length": "*(cut off at the max response length)*", "stopped": "*(stopped)*"}.get(
                        message.ending, f"*(failed: {message.failure})*"
                    )
                )
        return "\n\n".join(part for part in parts if part) + "\n"


def propose_title(question: str) -> str:
    """A title from the first line of a question, cut at a word; no model is asked."""
    lines = [line.strip() for line in _MARKDOWN.sub("", question).splitlines() if line.strip()]
    line = " ".join(lines[0].split()) if lines else ""
    if len(line) <= TITLE_LENGTH:
        return line
    return line[: TITLE_LENGTH + 1].rsplit(" ", 1)[0][:TITLE_LENGTH].rstrip(" ,.;:") + "…"


def export(conversations: Iterable[Conversation]) -> str:
    """JSON of `conversations` that `imports.py` reads back."""
    return json.dumps(
        {"format": FORMAT, "conversations": [each.model_dump(mode="json") for each in conversations]},
        ensure_ascii=False,
        indent=2,
    )


def parse(stored: Any) -> Conversation:
    """A conversation from its stored form.

    Raises:
        NotAConversation: it is of a newer format, or damaged.
    """
    version = stored.get("format") if isinstance(stored, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise NotAConversation(
            f"A conversation has format {version}, but this app reads up to {FORMAT}: update Duoserve first."
        )
    try:
        return Conversation.model_validate(stored)
    except ValidationError as failure:
        place = ".".join(str(part) for part in failure.errors()[0]["loc"])
        raise NotAConversation(f"A conversation is damaged (at {place or 'its start'}).") from None
