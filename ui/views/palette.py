"""What Ctrl+K offers beside conversations, and carrying it out."""

from typing import Any

import streamlit as st

from ui.components import palette
from ui.session import ChatSession
from ui.views import models


def draw(chat: ChatSession) -> None:
    """Mount the palette; it shows nothing until its key is pressed."""

    def act() -> None:
        _act(chat, st.session_state["palette"].action or {})

    palette(key="palette", data={"commands": commands(chat)}, on_action_change=act)


def commands(chat: ChatSession) -> list[tuple[str, dict[str, Any]]]:
    """The commands as `palette.js` lists them: what each is called, and the action."""
    found: list[tuple[str, dict[str, Any]]] = [
        (f"Use the model {name}", {"do": "model", "name": name})
        for name in models.names(chat)
        if name != chat.current.options.model
    ]
    if chat.current.id in chat.storage.conversations:
        found += [
            ("Unpin this conversation" if chat.current.pinned else "Pin this conversation", {"do": "pin"}),
            ("Delete this conversation", {"do": "delete"}),
        ]
    return found


def _act(chat: ChatSession, action: dict[str, Any]) -> None:
    name, this = action.get("do"), chat.current
    if name == "open":
        chat.open(action["id"], action["stored"])
    elif name == "new":
        chat.new()
    elif name == "model" and action["name"] in models.names(chat):
        this.options.model = action["name"]
        chat.options_changed()
    elif name == "pin":
        chat.pin(this.id, not this.pinned)
    elif name == "delete":
        chat.delete(this.id, this.name)
