"""What the pages beside the chat begin with."""

import streamlit as st

from ui.components import enliven_page
from ui.session import ChatSession

_LINKS = (
    ("views/chat.py", "Back to the chat", ":material/arrow_back:"),
    ("views/about.py", "About this service", ":material/monitoring:"),
    ("views/usage.py", "Usage", ":material/bar_chart:"),
)


def begin_page(chat: ChatSession, title: str) -> None:
    """Draw the title, and links to the other pages in the sidebar. An answer in the chat grows meanwhile."""
    chat.collect()
    # The link back names no conversation: it means the one that is open.
    st.session_state.pop("address", None)
    enliven_page()
    with st.sidebar:
        for page, label, icon in _LINKS:
            if label != title:
                st.page_link(page, label=label, icon=icon)
    st.title(title, anchor=False)
