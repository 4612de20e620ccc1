"""What a session keeps in the browser: a copy of it here, and the changes that the browser has yet to make.

The browser's side is `browser_store.js`. Changes are sent until the browser has acknowledged them, and carry
the revision they are based on: where another tab changed the same conversation meanwhile, both are kept.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from ui.conversation import Conversation, NotAConversation, new_id, parse

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
    """What belongs to the browser rather than to a conversation."""

    keep: Literal["device", "tab"] = "device"
    model: str = ""
    presets: list[Preset] = PRESETS


@dataclass
class Storage:
    """The conversations of one browser, as far as this session knows them."""

    conversations: dict[str, Conversation] = field(default_factory=dict)
    preferences: Preferences = field(default_factory=Preferences)
    loaded: bool = False
    nonce: str = field(default_factory=new_id)  # tells the browser which session it talks to
    _changes: list[dict[str, Any]] = field(default_factory=list)
    _sequence: int = 0
    _moves: list[str] = field(default_factory=list)  # ids that another tab's version has taken
    _touched: dict[str, int] = field(default_factory=dict)  # by conversation: its last change's number

    def save(self, conversation: Conversation) -> None:
        """Keep `conversation` as it is now."""
        base, conversation.revision = conversation.revision, new_id()
        self.conversations[conversation.id] = conversation
        # Only the newest state of a conversation needs to go out, on the base of the oldest unsent one.
        for change in self._changes:
            if change["op"] == "put" and change["conversation"]["id"] == conversation.id:
                base = change["base"]
        self._changes = [
            each for each in self._changes if each.get("conversation", {}).get("id") != conversation.id
        ]
        self._add({"op": "put", "base": base, "conversation": conversation.model_dump(mode="json")})
        self._touched[conversation.id] = self._sequence

    def delete(self, conversation_id: str) -> None:
        """Forget a conversation."""
        self.conversations.pop(conversation_id, None)
        self._add({"op": "delete", "id": conversation_id})
        self._touched[conversation_id] = self._sequence

    def save_preferences(self) -> None:
        """Keep the preferences as they are now."""
        self._add({"op": "preferences", "preferences": self.preferences.model_dump(mode="json")})

    def outgoing(self) -> dict[str, Any]:
        """What the browser's side is given."""
        return {"nonce": self.nonce, "moves": self._moves, "changes": self._changes}

    def acknowledged(self, said: Any) -> None:
        """The browser has made the changes up to a sequence number."""
        if isinstance(said, dict) and said.get("nonce") == self.nonce:
            self._changes = [
                change for change in self._changes if change["sequence"] > said.get("sequence", 0)
            ]

    def receive(self, said: Any) -> dict[str, str]:
        """Take over what the browser holds: at the start, and whenever another tab changed something.

        Returns the ids of conversations that changed in two tabs at once, each with the id under which the
        browser kept this session's version.
        """
        if not isinstance(said, dict) or said.get("nonce") != self.nonce:
            return {}
        moved = {old: new for old, new in (said.get("moved") or {}).items() if old not in self._moves}
        for old, new in moved.items():
            self._move(old, new)
        seen = said.get("sequence", 0)
        # What this session did after the browser took its look is newer than what it saw.
        newer = {key for key, sequence in self._touched.items() if sequence > seen}
        theirs = {
            each.id: each for each in _readable(said.get("conversations") or []) if each.id not in newer
        }
        self.conversations = theirs | {
            key: self.conversations[key] for key in newer & set(self.conversations)
        }
        if preferences := said.get("preferences"):
            try:
                self.preferences = Preferences.model_validate(preferences)
            except ValueError:
                _log.warning("the browser's preferences were damaged and are replaced by the defaults")
        self.loaded = True
        return moved

    def _move(self, old: str, new: str) -> None:
        """Another tab's version keeps the id `old`; ours goes on as `new`, and so do its unsent changes."""
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
            _log.warning("a stored conversation is skipped: %s", problem)
