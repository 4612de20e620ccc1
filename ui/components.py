"""The app's own components: what Streamlit has no counterpart for. Their browser side is in `frontend/`."""

from pathlib import Path
from typing import Any

import streamlit as st

FRONTEND = Path(__file__).parent / "frontend"


def _source(name: str) -> str:
    return (FRONTEND / name).read_text()


# `page_runs.py` mounts it, in a fragment.
browser_storage = st.components.v2.component("duoserve_storage", js=_source("storage.js"))
_partial = st.components.v2.component("duoserve_partial", js=_source("partial.js"))
_page = st.components.v2.component("duoserve_page", js=_source("page.js"))
_copy = st.components.v2.component(
    "duoserve_copy",
    html=_source("copy_button.html"),
    css=_source("copy_button.css"),
    js=_source("copy_button.js"),
)


def enliven_page() -> None:
    """Give a page without a chat input what all pages have, like a clipboard on plain HTTP."""
    _page(key="page", data={})


def focus_input(opened: str) -> None:
    """Put the cursor into the chat input, once for each `opened`: what the page shows now."""
    _page(key="page", data={"focus": opened})


def keep_partial(key: str, conversation: str, answer: str, message: dict[str, Any]) -> None:
    """Let the browser keep `message` as far as it has come; `key` has to be a new one each time."""
    _partial(key=key, data={"conversation": conversation, "answer": answer, "message": message})


def leave_for(address: str) -> None:
    """Send the browser to another page of this server."""
    _page(key="leave", data={"leave": address})


def copy_button(text: str, key: str, label: str) -> None:
    """A button that copies `text`."""
    _copy(key=key, data={"text": text, "label": label}, width="content")
