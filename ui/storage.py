"""What a session keeps in the browser: a copy of it, and the changes that the browser has yet to make.

The browser's side is `frontend/storage.js`. Changes are sent until the browser has acknowledged them, and
carry the revision they are based on: if another tab has changed the same conversation meanwhile, both stay.
"""

import json
import logging
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from ui.conversation import Conversation, Message, NotAConversation, new_id, parse

_log = logging.getLogger(__name__)
_LABELS = ("title", "pinned", "folder")  # of a conversation, which may change while an answer grows in it


class Preset(BaseModel):
    """A system prompt with a name."""

    name: str
    system: str


PRESETS = [
    Preset(
        name="Code review",
        system="You review code. Name bugs first, then risks, then style, each with the line and a fix. "
        "Say so when something is fine.",
    ),
    Preset(
        name="Explain",
        system="You explain code and concepts to a working developer: first in one sentence, then step by "
        "step, with a short example.",
    ),
    Preset(
        name="Commit message",
        system="You write Git commit messages. Subject in the imperative, at most 72 characters, an empty "
        "line, then why the change was made. Answer with the message only.",
    ),
]


class Prompt(BaseModel):
    """A question with a name; what is in {{double braces}} is asked for when it is used."""

    name: str
    text: str


PROMPTS = [
    Prompt(name="review", text="Review this code. Name bugs first, then risks:\n\n{{code}}"),
    Prompt(name="tests", text="Write pytest tests for this, with the edge cases:\n\n{{code}}"),
    Prompt(name="translate", text="Translate into {{language}}:\n\n{{text}}"),
]


class Preferences(BaseModel):
    """Settings of the browser rather than of one conversation."""

    keep: Literal["device", "tab"] = "device"
    theme: Literal["System", "Light", "Dark"] = "System"  # as Streamlit's page names them
    model: str = ""
    titles: bool = True  # whether the model writes them
    sync: str = ""  # the name of the key with which conversations are synced; empty: they are not
    presets: list[Preset] = PRESETS
    instructions: str = ""  # the system prompt of new conversations
    prompts: list[Prompt] = PROMPTS


@dataclass
class BrowserStorage:
    """The conversations that one session works with; all others stay in the browser, unseen by the server."""

    conversations: dict[str, Conversation] = field(default_factory=dict)
    preferences: Preferences = field(default_factory=Preferences)
    loaded: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)  # why, by the id of a conversation
    nonce: str = field(default_factory=new_id)  # tells the browser which session it talks to
    _changes: list[dict[str, Any]] = field(default_factory=list)
    _sequence: int = 0
    _wanted: set[str] = field(default_factory=set)  # ids that are being looked up
    _looks: int = 0  # how often something was looked up
    _moves: dict[str, str] = field(default_factory=dict)  # by an id that another tab's version keeps
    _partials: dict[str, Any] = field(default_factory=dict)  # messages by the answer's id
    _touched: dict[str, int] = field(default_factory=dict)  # by conversation: number of its last change
    _sent: dict[int, list[str]] = field(default_factory=dict)  # messages by the number of a change
    _known: dict[str, tuple[str, list[str]]] = field(default_factory=dict)  # see _put

    def look_up(self, conversation_id: str) -> None:
        """Have a conversation in `conversations` after the browser's next report, if the browser has it."""
        self._wanted.add(conversation_id)
        self._looks += 1

    def looks_for(self, conversation_id: str) -> bool:
        """Whether the browser has yet to report on this conversation."""
        return conversation_id in self._wanted

    def take(self, stored: Any) -> None:
        """Work with a conversation that the browser has sent as it is stored."""
        for conversation in self._readable([stored]):
            self._hold(conversation)

    def let_go(self, keep: Container[str]) -> None:
        """Forget the conversations that are stored and not in `keep`."""
        for each in [key for key in self.conversations if key not in keep and not self.unsaved(key)]:
            del self.conversations[each]
            self._known.pop(each, None)

    def save(self, conversation: Conversation, *, rescue: bool = False) -> None:
        """Store `conversation` as it is now.

        If another tab has saved it meanwhile, both versions are kept; to `rescue` means that this one is not.
        """
        base, conversation.revision = conversation.revision, new_id()
        self.conversations[conversation.id] = conversation
        # Only the newest state of a conversation needs to be sent, based on what the oldest unsent one is.
        for change in self._changes:
            if change["op"] == "put" and change["conversation"]["id"] == conversation.id:
                base, rescue = change["base"], rescue and change["rescue"]
        self._changes = [each for each in self._changes if not _puts(each, conversation.id)]
        self._add(self._put(conversation) | {"base": base, "rescue": rescue})
        self._touched[conversation.id] = self._sequence

    def _put(self, conversation: Conversation) -> dict[str, Any]:
        """The change that stores `conversation`, without the messages that the browser has.

        A long conversation would otherwise cross the network twice for each answer. The browser knows the
        version `after`, which begins with the same `same` messages.
        """
        messages = [message.model_dump_json() for message in conversation.messages]
        after, known = self._known.get(conversation.id, ("", []))
        same = next(
            (at for at, (old, new) in enumerate(zip(known, messages, strict=False)) if old != new),
            min(len(known), len(messages)),
        )
        self._sent[self._sequence + 1] = messages
        stored = conversation.model_dump(mode="json", exclude={"messages"})
        stored["messages"] = [json.loads(message) for message in messages[same:]]
        return {"op": "put", "after": after, "same": same, "conversation": stored}

    def send_whole(self) -> None:
        """Send what is unsaved with all of its messages: the browser does not know the version before."""
        self._known.clear()
        for change in self._changes:
            if change["op"] == "put" and (held := self.conversations.get(change["conversation"]["id"])):
                change |= {"after": "", "same": 0, "conversation": held.model_dump(mode="json")}

    def _hold(self, conversation: Conversation) -> None:
        """Work with `conversation`, which the browser has as it is."""
        self.conversations[conversation.id] = conversation
        messages = [message.model_dump_json() for message in conversation.messages]
        self._known[conversation.id] = conversation.revision, messages

    def change(self, conversation_id: str, **fields: Any) -> None:
        """Change fields like the title of a stored conversation, which need not be in `conversations`."""
        if conversation := self.conversations.get(conversation_id):
            for name, value in fields.items():
                setattr(conversation, name, value)
            self.save(conversation)
        else:
            self._add({"op": "head", "id": conversation_id, "fields": fields})

    def add(self, conversation: Conversation) -> None:
        """Store a conversation that comes from elsewhere; one that exists already is added as a copy."""
        self._add({"op": "add", "conversation": conversation.model_dump(mode="json")})

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation."""
        self.conversations.pop(conversation_id, None)
        self._add({"op": "delete", "id": conversation_id})
        self._touched[conversation_id] = self._sequence

    def restore(self, conversation_id: str) -> None:
        """Bring back a conversation that this session has deleted."""
        self._add({"op": "restore", "id": conversation_id})

    def unsaved(self, conversation_id: str) -> bool:
        """Whether the browser has yet to acknowledge the newest state of a conversation."""
        return any(_puts(change, conversation_id) for change in self._changes)

    def partial(self, answer_id: str) -> Message | None:
        """What the browser has kept of an answer that was growing when its page went away."""
        try:
            return Message.model_validate(self._partials[answer_id])
        except (KeyError, ValueError):
            return None

    def save_preferences(self) -> None:
        """Store the preferences as they are now."""
        self._add({"op": "preferences", "preferences": self.preferences.model_dump(mode="json")})

    def outgoing(self) -> dict[str, Any]:
        """The data for the browser's side."""
        return {
            "nonce": self.nonce,
            "moves": dict(self._moves),
            "changes": list(self._changes),
            "held": sorted({*self.conversations, *self._wanted}),
            "looks": self._looks,
        }

    def acknowledged(self, receipt: Any) -> None:
        """The browser has made the changes up to the sequence number in `receipt`."""
        if isinstance(receipt, dict) and receipt.get("nonce") == self.nonce:
            done = receipt.get("sequence", 0)
            for change in self._changes:
                if change["sequence"] <= done and change["op"] == "put":
                    stored = change["conversation"]
                    self._known[stored["id"]] = stored["revision"], self._sent[change["sequence"]]
            self._changes = [change for change in self._changes if change["sequence"] > done]
            self._sent = {sequence: sent for sequence, sent in self._sent.items() if sequence > done}

    def receive(self, snapshot: Any, busy: Container[str] = ()) -> dict[str, str]:
        """Take over what the browser holds: what was looked up, and what another tab has changed.

        Conversations that are `busy`, with an answer growing, stay as they are; what another tab has made of
        them is found when they are saved. Returns the ids of conversations that changed in two tabs at once,
        each with the id under which the browser has stored this session's version.
        """
        if not isinstance(snapshot, dict) or snapshot.get("nonce") != self.nonce:
            return {}
        given = snapshot.get("moved") or {}
        moved = {old: new for old, new in given.items() if self._moves.get(old) != new}
        for old, new in moved.items():
            self._move(old, new)
        seen = snapshot.get("sequence", 0)
        stored = {each.id: each for each in self._readable(snapshot.get("conversations") or [])}
        for asked in snapshot.get("held") or []:
            self._wanted.discard(asked)
            theirs, ours = stored.get(asked), self.conversations.get(asked)
            # What this session changed after the browser took the snapshot is newer than the snapshot.
            if self._touched.get(asked, 0) > seen:
                continue
            if ours and asked in busy:
                if theirs and theirs.revision == ours.revision:
                    for name in _LABELS:
                        setattr(ours, name, getattr(theirs, name))
            elif theirs:
                self._hold(theirs)
            else:
                self.conversations.pop(asked, None)
                self._known.pop(asked, None)
        self._partials = snapshot.get("partials") or {}
        if preferences := snapshot.get("preferences"):
            try:
                self.preferences = Preferences.model_validate(preferences)
            except ValueError:
                _log.warning("the browser's preferences are damaged; using the defaults")
        self.loaded = True
        return moved

    def _move(self, old: str, new: str) -> None:
        """Another tab's version keeps the id `old`; ours and its unsent changes continue as `new`."""
        self._moves[old] = new
        if old in self._known:
            self._known[new] = self._known.pop(old)
        if conversation := self.conversations.pop(old, None):
            conversation.id, conversation.title = new, f"{conversation.title} (other tab)"
            self.conversations[new] = conversation
        if old in self._touched:
            self._touched[new] = self._touched.pop(old)
        for change in self._changes:
            if change["op"] == "put" and change["conversation"]["id"] == old:
                change["conversation"] |= {
                    "id": new,
                    "title": f"{change['conversation']['title']} (other tab)",
                }
            elif change["op"] == "delete" and change["id"] == old:
                change["id"] = new

    def _readable(self, stored: Iterable[Any]) -> Iterable[Conversation]:
        """What can be read of `stored`; the rest stays in the browser untouched."""
        for each in stored:
            try:
                yield parse(each)
            except NotAConversation as problem:
                _log.warning("skipping a stored conversation: %s", problem)
                if isinstance(each, dict):
                    self.unreadable[str(each.get("id"))] = str(problem)

    def _add(self, change: dict[str, Any]) -> None:
        self._sequence += 1
        self._changes.append(change | {"sequence": self._sequence})


def _puts(change: dict[str, Any], conversation_id: str) -> bool:
    return bool(change["op"] == "put" and change["conversation"]["id"] == conversation_id)
