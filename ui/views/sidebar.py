"""The sidebar: the conversations, import and export, settings, and links."""

from datetime import UTC, datetime

import streamlit as st

from ui import signin
from ui.conversation import Conversation, NotAConversation, export, in_order, parse_export
from ui.markdown import plain
from ui.session import ChatSession

_SHOWN = 40


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
    everything = st.session_state.get("all-conversations", False)
    with st.container(gap=None, key="conversations"):
        group = ""
        for conversation in found if everything else found[:_SHOWN]:
            if (now := _group(conversation)) != group:
                group = now
                st.caption(group)
            running = ":material/more_horiz: " if conversation.id in chat.answers else ""
            st.button(
                running + plain(conversation.name),
                key=f"open-{conversation.id}",
                type="secondary" if conversation.id == chat.current.id else "tertiary",
                width="stretch",
                wrap=False,
                on_click=chat.open,
                args=(conversation.id,),
            )
    if len(found) > _SHOWN:
        st.toggle(f"Show all {len(found)}", key="all-conversations")


def _group(conversation: Conversation) -> str:
    if conversation.pinned:
        return "Pinned"
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
        st.caption("Light or dark follows your system's setting.")
