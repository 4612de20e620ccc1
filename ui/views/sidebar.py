"""The sidebar: the conversations, import and export, settings, and links."""

from typing import Any

import streamlit as st

from ui import imports, signin, sync
from ui.components import conversation_list, export_button, sync_state
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
            _sync_state(chat)
        st.page_link("views/about.py", label="About this service", icon=":material/monitoring:")
        if not chat.backend.settings.only_this_machine:
            st.button("Sign out", icon=":material/logout:", type="tertiary", on_click=_sign_out, args=(chat,))


def _sign_out(chat: ChatSession) -> None:
    key = chat.backend.settings.litellm_master_key.get_secret_value()
    signin.sessions(key).end(_cookie())


def _cookie() -> str:
    return str(st.context.cookies.get(signin.COOKIE, ""))


def _syncs(chat: ChatSession) -> bool:
    """Whether sync was turned on in this browser with the key that somebody is signed in with. With another
    key, it would mix the conversations of two people.
    """
    name = signin.viewer(chat.backend.settings, _cookie())
    return bool(name) and chat.storage.preferences.sync == name


def _why_not(chat: ChatSession) -> str:
    if chat.storage.preferences.keep == "tab":
        return "Only for conversations that are kept in this browser."
    return sync.why_not(chat.backend.settings, _cookie())


def _sync_state(chat: ChatSession) -> None:
    """What syncs, and a line that tells how it goes."""
    problem = _why_not(chat) if _syncs(chat) else ""
    mine = sync.vault(chat.backend.settings, _cookie())
    on = mine if _syncs(chat) and not problem else None
    sync_state(key="synced", data={"vault": on.id if on else "", "problem": problem})


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
                "They are stored on this device and, because you sync them, encrypted on the server."
                if _syncs(chat)
                else "They are stored only on this device. The server sees the open one but stores none.",
                "Nothing is kept in this browser after that.",
            ],
            key="keep",
            on_change=keep,
        )
        _sync(chat)

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


def _sync(chat: ChatSession) -> None:
    """The switch, what it means for the server, and how to take that back."""
    problem, mine = _why_not(chat), sync.vault(chat.backend.settings, _cookie())

    def choose() -> None:
        name = signin.viewer(chat.backend.settings, _cookie()) or ""
        chat.storage.preferences.sync = name if st.session_state.sync else ""
        chat.storage.save_preferences()

    def clear() -> None:
        if mine:
            mine.clear()

    st.toggle(
        "Sync conversations across my devices",
        _syncs(chat),
        key="sync",
        on_change=choose,
        disabled=bool(problem),
    )
    st.caption(
        problem
        or "The server's disk gets them encrypted with your key. The app on the server encrypts and decrypts "
        "them: they pass through its memory, which has what it derives from your key while you are signed "
        "in. With a new key, the old copies cannot be read, and your devices store theirs again."
    )
    if mine and mine.used and not _syncs(chat):
        st.button(
            "Delete the copies on the server",
            icon=":material/delete:",
            type="tertiary",
            on_click=clear,
            help="Conversations stay on your devices. Those that still sync store their copies again.",
        )
