"""The app's own components: what Streamlit has no counterpart for. Their browser side is in `frontend/`."""

from pathlib import Path

import streamlit as st

FRONTEND = Path(__file__).parent / "frontend"


def _source(name: str) -> str:
    return (FRONTEND / name).read_text()


# `page_runs.py` mounts it, in a fragment.
browser_storage = st.components.v2.component("duoserve_storage", js=_source("storage.js"))
_page = st.components.v2.component("duoserve_page", js=_source("page.js"))
_copy = st.components.v2.component(
    "duoserve_copy",
    html=_source("copy_button.html"),
    css=_source("copy_button.css"),
    js=_source("copy_button.js"),
)


def focus_input(opened: str) -> None:
    """Put the cursor into the chat input, once for each `opened`: what the page shows now."""
    _page(key="page", data={"focus": opened})


def leave_for(address: str) -> None:
    """Send the browser to another page of this server."""
    _page(key="leave", data={"leave": address})


def copy_button(text: str, key: str, label: str) -> None:
    """A button that copies `text`."""
    _copy(key=key, data={"text": text, "label": label}, width="content")
