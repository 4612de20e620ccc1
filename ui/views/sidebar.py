"""The sidebar: the conversations, import and export, settings, and links."""

from collections.abc import Container, Iterable
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from ui import signin
from ui.components import conversation_list
from ui.conversation import Conversation, NotAConversation, export, in_order, parse_export
from ui.session import ChatSession


def draw(chat: ChatSession) -> None:
    """The sidebar of the chat page."""
    with st.sidebar:
        st.markdown("#### :material/forum: Duoserve", anchors=False)
        st.button(
            "New chat",
            icon=":material/edit_square:",
            width="stretch",
            shortcut="Mod+Shift+O",
            on_click=chat.new,
        )
        if not chat.storage.loaded:
            st.caption("Loading conversations from this browser …")
        words = ""
        if len(chat.storage.conversations) > 1:
            words = st.text_input(
                "Search",
                placeholder="Search conversations",
                label_visibility="collapsed",
                icon=":material/search:",
            )
        _conversations(chat, words)
        st.space("small")
        if chat.storage.loaded:
            with st.container(horizontal=True, gap="small"):
                _import(chat)
                _preferences(chat)
        st.page_link("views/about.py", label="About this service", icon=":material/monitoring:")
        if not chat.backend.settings.only_this_machine:
            st.button("Sign out", icon=":material/logout:", type="tertiary", on_click=_sign_out, args=(chat,))


def _sign_out(chat: ChatSession) -> None:
    key = chat.backend.settings.litellm_master_key.get_secret_value()
    signin.sessions(key).end(st.context.cookies.get(signin.COOKIE, ""))


def _conversations(chat: ChatSession, words: str) -> None:
    found = [each for each in in_order(chat.storage.conversations.values()) if each.matches(words)]
    if words and not found:
        st.caption("No conversation contains all of these words.")

    def act() -> None:
        _act(chat, st.session_state["conversations"].action or {})

    conversation_list(
        key="conversations",
        data={
            "items": rows(found, chat.answers),
            "open": chat.current.id,
            "folders": _folders(chat),
        },
        on_action_change=act,
    )


def _folders(chat: ChatSession) -> list[str]:
    return sorted({each.folder for each in chat.storage.conversations.values() if each.folder})


def rows(found: Iterable[Conversation], answering: Container[str]) -> list[dict[str, Any]]:
    """Conversations as `conversations.js` lists them: pinned ones, folders, then the others by day."""
    made = [
        {
            "id": each.id,
            "name": each.name,
            "pinned": each.pinned,
            "folder": each.folder,
            "group": "Pinned" if each.pinned else "" if each.folder else _day(each),
            "running": each.id in answering,
        }
        for each in found
    ]

    def place(row: dict[str, Any]) -> tuple[int, str]:
        return (0, "") if row["pinned"] else (1, row["folder"].casefold()) if row["folder"] else (2, "")

    return sorted(made, key=place)


def _act(chat: ChatSession, action: dict[str, Any]) -> None:
    name, this = action.get("do"), action.get("id", "")
    if name == "rename folder":
        inside = [each.id for each in chat.storage.conversations.values() if each.folder == action["folder"]]
        chat.move(inside, action["name"])
    elif this not in chat.storage.conversations:
        return  # it was deleted meanwhile, in another tab
    elif name == "open":
        chat.open(this)
    elif name == "rename":
        chat.rename(this, action["name"])
    elif name == "pin":
        chat.pin(this)
    elif name == "move":
        chat.move([this], action["folder"])
    elif name == "delete":
        chat.delete(this)


def _day(conversation: Conversation) -> str:
    days = (datetime.now(UTC).date() - conversation.updated.date()).days
    return "Today" if days < 1 else "Yesterday" if days == 1 else "Last 7 days" if days < 7 else "Older"


def _import(chat: ChatSession) -> None:
    with st.popover("Import, export", icon=":material/swap_vert:", type="tertiary"):
        st.download_button(
            "Export all as JSON",
            data=lambda: export(in_order(chat.storage.conversations.values())),
            file_name="duoserve-conversations.json",
            mime="application/json",
            icon=":material/download:",
            disabled=not chat.storage.conversations,
            on_click="ignore",
        )
        # A new key after each import empties the uploader, so that nothing is imported twice.
        turn = st.session_state.setdefault("imports", 0)
        file = st.file_uploader(
            "Import conversations (JSON)", type="json", key=f"import-{turn}", max_upload_size=50
        )
        if file is not None:
            try:
                conversations = parse_export(file.getvalue())
            except NotAConversation as problem:
                st.error(str(problem))
            else:
                chat.add(conversations)
                st.session_state.imports += 1
                st.toast(f"{len(conversations)} imported.")
                st.rerun()


def _preferences(chat: ChatSession) -> None:
    with st.popover("Settings", icon=":material/settings:", type="tertiary"):

        def keep() -> None:
            chat.storage.preferences.keep = st.session_state.keep
            chat.storage.save_preferences()

        st.radio(
            "Keep conversations",
            ["device", "tab"],
            index=["device", "tab"].index(chat.storage.preferences.keep),
            format_func={"device": "In this browser", "tab": "Until this tab is closed"}.__getitem__,
            captions=["They are stored on this device only.", "Nothing is left behind."],
            key="keep",
            on_change=keep,
        )

        def choose_theme() -> None:
            chat.storage.preferences.theme = st.session_state.theme
            chat.storage.save_preferences()

        st.segmented_control(
            "Appearance",
            ["System", "Light", "Dark"],
            default=chat.storage.preferences.theme,
            required=True,
            key="theme",
            on_change=choose_theme,
        )
