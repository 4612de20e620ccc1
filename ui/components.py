"""The three small pieces of JavaScript that Streamlit has no counterpart for."""

from pathlib import Path
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.session import ChatSession

_HERE = Path(__file__).parent
_store = st.components.v2.component("duoserve_store", js=(_HERE / "browser_store.js").read_text())
_page = st.components.v2.component("duoserve_page", js=(_HERE / "page_script.js").read_text())
_copy = st.components.v2.component(
    "duoserve_copy",
    html="<button type='button'><span>Copy</span></button>",
    css="""
        button { background: none; border: 0; padding: 0; min-height: 1.6rem; cursor: pointer; font: inherit;
                 font-size: .8rem; color: var(--st-gray-text-color); border-radius: .4rem; }
        button:hover, button:focus-visible { color: var(--st-primary-color); }
        button:focus-visible { outline: 2px solid var(--st-primary-color); }
    """,
    js=(_HERE / "copy_button.js").read_text(),
)


def place_of_its_own(width: Literal["content", "stretch"] = "content") -> DeltaGenerator:
    """A container for one fragment alone.

    When a fragment runs before the page that it is part of has been sent, Streamlit (1.67) sends that page
    without the fragment, and the browser closes the gap: what comes behind moves up, the next drawing misses
    its place and leaves a blank page. In a container of its own a fragment has nothing behind it.
    """
    return st.container(width=width)


@st.fragment
def keep_in_browser(chat: ChatSession) -> None:
    """Exchange what is new with the browser's storage; a fragment, so that an acknowledgement is cheap."""
    before = st.session_state.get("store") or {}
    chat.storage.acknowledged(before.get("acknowledged"))
    said = _store(
        key="store",
        data=chat.storage.outgoing(),
        on_snapshot_change=lambda: None,
        on_acknowledged_change=lambda: None,
        on_trouble_change=lambda: None,
    )
    if said.snapshot:
        chat.received(said.snapshot)
        st.rerun()
    if said.trouble:
        st.toast(
            "This browser does not keep conversations: its storage is full or switched off. "
            "Export what you need."
        )


def focus_input(what: str) -> None:
    """Put the cursor into the chat input once for each `what`."""
    _page(key="page", data={"focus": what})


def leave_for(address: str) -> None:
    """Send the browser to another page of this server."""
    _page(key="leave", data={"leave": address})


def copy_button(text: str, key: str, label: str) -> None:
    """A button that copies `text`."""
    _copy(key=key, data={"text": text, "label": label}, width="content")
