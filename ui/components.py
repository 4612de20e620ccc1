"""What Streamlit has no counterpart for: three pieces of JavaScript, and fragments that lose nothing."""

import threading
import time
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


# Seconds; longer than Streamlit's event loop lags behind its scripts, shorter than a fragment's `run_every`.
_SURELY_SENT = 1.5


def page_begins() -> bool:
    """Note that the page is being drawn. Returns whether it has to show the end of an answer."""
    st.session_state.drawn = None
    return bool(st.session_state.pop("show_end", False))


def page_ends(shows_end: bool) -> None:
    """Note that all of the page was drawn; with `shows_end` the end of an answer, which must not be lost."""
    if shows_end:
        st.session_state.drawn = threading.current_thread(), time.monotonic()


def draw_end() -> None:
    """Draw the page anew, with the end of an answer."""
    st.session_state.show_end = True
    st.rerun()


def draw_end_if_lost() -> None:
    """Draw the page once more where the run of a fragment that calls this may have cost the end of an answer.

    A fragment's run that begins when the page's script has ended, but not all of it was sent, has a thread of
    its own, and Streamlit (1.67, AppSession) then ignores what is left of the other: the answer would seem to
    grow for ever.
    """
    if drawn := st.session_state.get("drawn"):
        thread, when = drawn
        if threading.current_thread() is not thread and time.monotonic() - when < _SURELY_SENT:
            draw_end()


def keep_in_browser(chat: ChatSession) -> None:
    """Exchange what is new with the browser's storage.

    In a fragment, whose runs wait for the page's: another run of the page would forget what was clicked in
    the same instant. Streamlit (1.67) makes a click of the same millisecond a part of the fragment's run, so
    the page is drawn after it.
    """
    of_page = True

    @st.fragment
    def exchange() -> None:
        before = st.session_state.get("store") or {}
        chat.storage.acknowledged(before.get("acknowledged"))
        said = _store(
            key="store",
            data=chat.storage.outgoing() | {"growing": bool(chat.answer)},
            on_snapshot_change=lambda: None,
            on_acknowledged_change=lambda: None,
            on_trouble_change=lambda: None,
        )
        if said.snapshot:
            chat.received(said.snapshot)
        if said.trouble:
            st.toast(
                "This browser does not keep conversations: its storage is full or switched off. "
                "Export what you need."
            )
        elif said.snapshot or not of_page:
            st.rerun()

    with place_of_its_own():
        exchange()
    of_page = False


def focus_input(what: str) -> None:
    """Put the cursor into the chat input once for each `what`."""
    _page(key="page", data={"focus": what})


def leave_for(address: str) -> None:
    """Send the browser to another page of this server."""
    _page(key="leave", data={"leave": address})


def copy_button(text: str, key: str, label: str) -> None:
    """A button that copies `text`."""
    _copy(key=key, data={"text": text, "label": label}, width="content")
