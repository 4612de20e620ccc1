"""Exchanging news with the browser's storage while people click, so that nothing of either is lost.

Streamlit (1.67) runs the page's script from top to bottom for every click, and single fragments by themselves
on a timer, or when a component inside has news. The races between them, and how they are avoided, are here.
"""

from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.components import browser_storage
from ui.session import ChatSession


def fragment_place(width: Literal["content", "stretch"] = "content") -> DeltaGenerator:
    """A container for a single fragment.

    When a fragment runs before the page that it belongs to has been sent, Streamlit sends that page without
    the fragment, and the browser closes the gap: what follows moves up, the next drawing misses its place and
    leaves a blank page. In a container with nothing else in it, nothing follows.
    """
    return st.container(width=width)


def key_of(name: str) -> str:
    """The key of a widget whose value the app sets at times: another one after each `renew(name)`.

    The browser may send the old value once more before it has heard of the new one, which under the same key
    would count as a change by the user: a deleted preset would come back. Streamlit calls the callback of a
    widget that is gone, too, so a callback compares the key it was drawn with to this one.
    """
    turns: dict[str, int] = st.session_state.setdefault("renewed", {})
    return f"{name}-{turns.get(name, 0)}"


def renew(name: str) -> None:
    """Draw a widget anew, with the value that it has by default."""
    turns: dict[str, int] = st.session_state.setdefault("renewed", {})
    turns[name] = turns.get(name, 0) + 1


def sync_storage(chat: ChatSession) -> None:
    """Exchange changes with the browser's storage.

    In a fragment, whose runs wait for the page's: if the storage's report caused another run of the page,
    a click at the same moment would be forgotten. As it is, Streamlit makes such a click part of the
    fragment's run, so the page is drawn after that.
    """
    in_page_run = True

    @st.fragment
    def exchange() -> None:
        before = st.session_state.get("storage") or {}
        chat.stored(before.get("acknowledged"))
        news = browser_storage(
            key="storage",
            data=chat.storage.outgoing(),
            on_snapshot_change=lambda: None,
            on_acknowledged_change=lambda: None,
            on_lacking_change=lambda: None,
            on_trouble_change=lambda: None,
        )
        if news.snapshot:
            chat.received(news.snapshot)
        if news.lacking:
            chat.storage.send_whole()
        if news.trouble:
            st.toast(
                "This browser cannot save conversations: its storage is full or disabled. "
                "Export what you want to keep."
            )
        elif news.snapshot or not in_page_run:
            st.rerun()

    with fragment_place():
        exchange()
    in_page_run = False
