"""The app's own components: what Streamlit has no counterpart for. Their browser side is in `frontend/`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from ui.conversation import FORMAT

FRONTEND = Path(__file__).parent / "frontend"


def _component(name: str, script: str, *, html: str = "", isolate_styles: bool = False) -> Callable[..., Any]:
    """A component, to be called with its `key`, its `data`, and what is to be called for its news."""
    mount = st.components.v2.component(
        f"duoserve_{name}",
        html=(FRONTEND / html).read_text() if html else None,
        js=(FRONTEND / script).read_text() + (FRONTEND / "newest.js").read_text(),
        isolate_styles=isolate_styles,
    )

    def draw(*, key: str, data: dict[str, Any], **more: Any) -> Any:
        # Only with other data: the same is not sent again.
        sent: dict[str, tuple[int, dict[str, Any]]] = st.session_state.setdefault("sent", {})
        at, before = sent.get(key, (0, None))
        if data != before:
            at = max(at + 1, int(time.time() * 1000))
            sent[key] = at, data
        return mount(key=key, data=data | {"at": at}, **more)

    return draw


# `page_runs.py` mounts it, in a fragment.
browser_storage = _component("storage", "storage.js", isolate_styles=True)
# `views/messages.py` mounts it.
transcript = _component("transcript", "transcript.js", html="transcript.html")
# `views/sidebar.py` mounts it.
conversation_list = _component("conversations", "conversations.js")
# `views/sidebar.py` mounts it.
sync_state = _component("sync", "sync.js")
# `views/models.py` mounts it, in a fragment.
model_picker = _component("models", "model_picker.js")
# `views/palette.py` mounts it.
palette = _component("palette", "palette.js")
# `views/prompts.py` mounts it.
prompt_menu = _component("prompts", "prompts.js")
_export = _component("export", "export_button.js")
_stop = _component("stop", "stop_button.js")
_page = _component("page", "page.js", isolate_styles=True)


def enliven_page() -> None:
    """Give a page without a chat input what all pages have, like a clipboard on plain HTTP."""
    _page(key="page", data={})


def focus_input(opened: str, draft: str) -> None:
    """Put the cursor into the chat input, once for each `opened`: what the page shows now.

    What was written before for `draft`, and not sent, is there again.
    """
    _page(key="page", data={"focus": opened, "draft": draft}, on_went_change=lambda: None)


def went_to() -> dict[str, str] | None:
    """The address, and the number, of the last step that somebody went back or forward."""
    return (st.session_state.get("page") or {}).get("went")


def stop_button(answer: str) -> None:
    """A button, and Esc, that stop the growing answer with this id, and the one beside it."""
    _stop(key="stop", data={"answer": answer}, width="content")


def export_button(votes: bool = False) -> None:
    """A button that saves all conversations of this browser, or the votes in them, to a file."""
    _export(key=f"export-{votes}", data={"format": FORMAT, "votes": votes}, width="content")


def leave_for(address: str) -> None:
    """Send the browser to another page of this server."""
    _page(key="leave", data={"leave": address})
