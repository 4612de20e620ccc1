"""The sidebar: the conversations, import and export, settings, and links."""

from typing import Any

import streamlit as st

from ui import imports, signin
from ui.components import conversation_list, export_button
from ui.conversation import NotAConversation
from ui.markdown import plain
from ui.session import ChatSession
from ui.views import prompts


def draw(chat: ChatSession) -> None:
    """The sidebar of the chat page."""
    with st.sidebar:
        st.markdown(":material/forum: **Duoserve**")
        st.button(
            "New chat",
            icon=":material/edit_square:",
            width="stretch",
            shortcut="Mod+Shift+O",
            on_click=chat.new,
        )
        if not chat.storage.loaded:
            st.caption("Loading conversations from this browser …")
        _conversations(chat)
        st.space("small")
        if chat.storage.loaded:
            with st.container(horizontal=True, gap="xsmall"):
                _import(chat)
                prompts.draw(chat)
                _preferences(chat)
        st.page_link("views/about.py", label="About this service", icon=":material/monitoring:")
        if not chat.backend.settings.only_this_machine:
            st.button("Sign out", icon=":material/logout:", type="tertiary", on_click=_sign_out, args=(chat,))


def _sign_out(chat: ChatSession) -> None:
    key = chat.backend.settings.litellm_master_key.get_secret_value()
    signin.sessions(key).end(st.context.cookies.get(signin.COOKIE, ""))


def _conversations(chat: ChatSession) -> None:
    def act() -> None:
        _act(chat, st.session_state["conversations"].action or {})

    conversation_list(
        key="conversations",
        data={"open": chat.opening or chat.current.id, "running": list(chat.answers)},
        on_action_change=act,
    )


def _act(chat: ChatSession, action: dict[str, Any]) -> None:
    name, this = action.get("do"), action.get("id", "")
    if name == "open":
        chat.open(this, action["stored"])
    elif name == "rename":
        chat.rename(this, action["name"])
    elif name == "pin":
        chat.pin(this, action["pinned"])
    elif name == "move":
        chat.move(action["ids"], action["folder"])
    elif name == "delete":
        chat.delete(this, action["name"])


def _import(chat: ChatSession) -> None:
    with st.popover("Import, export", icon=":material/swap_vert:", type="tertiary"):
        export_button()
        export_button(votes=True)
        # A new key after each import empties the uploader, so that nothing is imported twice.
        turn = st.session_state.setdefault("imports", 0)
        file = st.file_uploader(
            "Import conversations",
            type=["json", "zip"],
            key=f"import-{turn}",
            max_upload_size=50,
            help="Exports of this app, ChatGPT, Claude or Open WebUI; a ZIP archive as it was downloaded.",
        )
        if file is not None:
            try:
                conversations, problems = imports.read(file.getvalue())
            except NotAConversation as problem:
                st.error(plain(str(problem)))
            else:
                chat.add(conversations)
                st.session_state.imports += 1
                st.toast(f"{len(conversations)} imported.")
                if problems:
                    st.toast(plain(f"{len(problems)} could not be read. {problems[0]}"), duration="long")
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
            captions=[
                "They are stored only on this device. The server sees the open one but stores none.",
                "Nothing is kept after that.",
            ],
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

        def choose_titles() -> None:
            chat.storage.preferences.titles = st.session_state.titles
            chat.storage.save_preferences()

        st.toggle(
            "Titles by the model",
            chat.storage.preferences.titles,
            key="titles",
            on_change=choose_titles,
            help="After the first answer, a small request has the model name the conversation. "
            "If off, the title is the beginning of the question.",
        )
