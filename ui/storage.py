"""What a session keeps in the browser: a copy of it, and the changes that the browser has yet to make.

The browser's side is `frontend/storage.js`. Changes are sent until the browser has acknowledged them, and
carry the revision they are based on: if another tab has changed the same conversation meanwhile, both stay.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from ui.conversation import Conversation, Message, NotAConversation, new_id, parse

_log = logging.getLogger(__name__)


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


class Preferences(BaseModel):
    """Settings of the browser rather than of one conversation."""

    keep: Literal["device", "tab"] = "device"
    theme: Literal["System", "Light", "Dark"] = "System"  # as Streamlit's page names them
    model: str = ""
    presets: list[Preset] = PRESETS


@dataclass
class BrowserStorage:
    """The conversations of one browser, as far as this session knows them."""

    conversations: dict[str, Conversation] = field(default_factory=dict)
    preferences: Preferences = field(default_factory=Preferences)
    loaded: bool = False
    nonce: str = field(default_factory=new_id)  # tells the browser which session it talks to
    _changes: list[dict[str, Any]] = field(default_factory=list)
    _sequence: int = 0
    _moves: list[str] = field(default_factory=list)  # ids that another tab's version keeps
    _partials: dict[str, Any] = field(default_factory=dict)  # messages by the answer's id
    _touched: dict[str, int] = field(default_factory=dict)  # by conversation: number of its last change

    def save(self, conversation: Conversation) -> None:
        """Store `conversation` as it is now."""
        base, conversation.revision = conversation.revision, new_id()
        self.conversations[conversation.id] = conversation
        # Only the newest state of a conversation needs to be sent, based on what the oldest unsent one is.
        for change in self._changes:
            if change["op"] == "put" and change["conversation"]["id"] == conversation.id:
                base = change["base"]
        self._changes = [
            each for each in self._changes if each.get("conversation", {}).get("id") != conversation.id
        ]
        self._add({"op": "put", "base": base, "conversation": conversation.model_dump(mode="json")})
        self._touched[conversation.id] = self._sequence

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation."""
        self.conversations.pop(conversation_id, None)
        self._add({"op": "delete", "id": conversation_id})
        self._touched[conversation_id] = self._sequence

    def unsaved(self, conversation_id: str) -> bool:
        """Whether the browser has yet to acknowledge the newest state of a conversation."""
        return any(change.get("conversation", {}).get("id") == conversation_id for change in self._changes)

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
        return {"nonce": self.nonce, "moves": self._moves, "changes": self._changes}

    def acknowledged(self, receipt: Any) -> None:
        """The browser has made the changes up to the sequence number in `receipt`."""
        if isinstance(receipt, dict) and receipt.get("nonce") == self.nonce:
            done = receipt.get("sequence", 0)
            self._changes = [change for change in self._changes if change["sequence"] > done]

    def receive(self, snapshot: Any) -> dict[str, str]:
        """Take over what the browser holds: at the start, and whenever another tab has changed something.

        Returns the ids of conversations that changed in two tabs at once, each with the id under which the
        browser has stored this session's version.
        """
        if not isinstance(snapshot, dict) or snapshot.get("nonce") != self.nonce:
            return {}
        moved = {old: new for old, new in (snapshot.get("moved") or {}).items() if old not in self._moves}
        for old, new in moved.items():
            self._move(old, new)
        seen = snapshot.get("sequence", 0)
        # What this session changed after the browser took the snapshot is newer than the snapshot.
        newer = {key for key, sequence in self._touched.items() if sequence > seen}
        stored = _readable(snapshot.get("conversations") or [])
        theirs = {each.id: each for each in stored if each.id not in newer}
        ours = {key: self.conversations[key] for key in newer & set(self.conversations)}
        self.conversations = theirs | ours
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
        self._moves.append(old)
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

    def _add(self, change: dict[str, Any]) -> None:
        self._sequence += 1
        self._changes.append(change | {"sequence": self._sequence})


def _readable(stored: Iterable[Any]) -> Iterable[Conversation]:
    """What can be read of `stored`; the rest stays in the browser untouched."""
    for each in stored:
        try:
            yield parse(each)
        except NotAConversation as problem:
            _log.warning("skipping a stored conversation: %s", problem)
