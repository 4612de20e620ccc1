"""How the chat page is run again and again, so that neither a click nor the end of an answer is lost.

Streamlit (1.67) runs the page's script from top to bottom for every click, and single fragments by themselves
on a timer, or when a component inside has news. The races between them, and how they are avoided, are here.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.components import browser_storage
from ui.session import ChatSession

# Seconds: longer than Streamlit's event loop lags behind its scripts, shorter than a fragment's `run_every`.
_SURELY_SENT = 1.5


def fragment_place(width: Literal["content", "stretch"] = "content") -> DeltaGenerator:
    """A container for a single fragment.

    When a fragment runs before the page that it belongs to has been sent, Streamlit sends that page without
    the fragment, and the browser closes the gap: what follows moves up, the next drawing misses its place and
    leaves a blank page. In a container with nothing else in it, nothing follows.
    """
    return st.container(width=width)


def let_clicks_interrupt() -> None:
    """End this run here if somebody has clicked: the click's run takes over.

    Every use of Streamlit does that; a function for it alone is only proposed
    (https://github.com/streamlit/streamlit/issues/14523). Reading the session's state draws nothing.
    """
    st.session_state.get("chat")


class PageRuns:
    """The runs of one session's chat page.

    When an answer has ended, the page is drawn once more, complete. That run can be lost: if a fragment's run
    starts when the page's script has ended but not all of it has been sent, it gets another thread, and
    Streamlit drops what is left of the first one's output (the race behind
    https://github.com/streamlit/streamlit/issues/9921). The answer would seem to go on growing for ever. So a
    fragment that runs this soon, and in another thread, asks for the page again.
    """

    def __init__(self, chat: ChatSession) -> None:
        self._chat = chat
        self._end_due = False  # the page has yet to be drawn with the end of an answer
        self._end_drawn: tuple[threading.Thread, float] | None = None  # where and when it was

    @contextmanager
    def page(self) -> Iterator[None]:
        """Wraps the drawing of the page."""
        self._end_drawn = None
        yield  # an interrupted run does not come back here
        if self._end_due:
            self._end_due = False
            self._end_drawn = threading.current_thread(), time.monotonic()

    def draw_end(self) -> None:
        """Draw the page again, with the end of an answer."""
        self._end_due = True
        st.rerun()

    def draw_end_if_lost(self) -> None:
        """Draw the page again if the fragment's run that calls this may have cost the end of an answer."""
        if self._end_drawn:
            thread, when = self._end_drawn
            if threading.current_thread() is not thread and time.monotonic() - when < _SURELY_SENT:
                self.draw_end()

    def sync_storage(self) -> None:
        """Exchange changes with the browser's storage.

        In a fragment, whose runs wait for the page's: if the storage's report caused another run of the page,
        a click at the same moment would be forgotten. As it is, Streamlit makes such a click part of the
        fragment's run, so the page is drawn after that.
        """
        in_page_run = True

        @st.fragment
        def exchange() -> None:
            chat = self._chat
            before = st.session_state.get("storage") or {}
            chat.storage.acknowledged(before.get("acknowledged"))
            news = browser_storage(
                key="storage",
                data=chat.storage.outgoing() | {"growing": bool(chat.answer)},
                on_snapshot_change=lambda: None,
                on_acknowledged_change=lambda: None,
                on_trouble_change=lambda: None,
            )
            if news.snapshot:
                chat.received(news.snapshot)
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
