"""What the pages beside the chat begin with."""

import importlib

import streamlit as st

from ui.components import enliven_page
from ui.session import ChatSession

# Altair, which draws their charts, looks for pandas among what is imported. Another session may just import
# it, and the chart would find half of it.
importlib.import_module("pandas")

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
