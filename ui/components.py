"""The app's own components: what Streamlit has no counterpart for. Their browser side is in `frontend/`."""

from pathlib import Path

import streamlit as st

from ui.conversation import FORMAT

FRONTEND = Path(__file__).parent / "frontend"


def _source(name: str) -> str:
    return (FRONTEND / name).read_text()


# `page_runs.py` mounts it, in a fragment.
browser_storage = st.components.v2.component("duoserve_storage", js=_source("storage.js"))
# `views/messages.py` mounts it.
transcript = st.components.v2.component(
    "duoserve_transcript",
    html=_source("transcript.html"),
    js=_source("transcript.js"),
    isolate_styles=False,
)
# `views/sidebar.py` mounts it.
conversation_list = st.components.v2.component(
    "duoserve_conversations", js=_source("conversations.js"), isolate_styles=False
)
# `views/sidebar.py` mounts it.
sync_state = st.components.v2.component("duoserve_sync", js=_source("sync.js"), isolate_styles=False)
# `views/models.py` mounts it, in a fragment.
model_picker = st.components.v2.component(
    "duoserve_models", js=_source("model_picker.js"), isolate_styles=False
)
# `views/palette.py` mounts it.
palette = st.components.v2.component("duoserve_palette", js=_source("palette.js"), isolate_styles=False)
# `views/prompts.py` mounts it.
prompt_menu = st.components.v2.component("duoserve_prompts", js=_source("prompts.js"), isolate_styles=False)
_export = st.components.v2.component("duoserve_export", js=_source("export_button.js"), isolate_styles=False)
_stop = st.components.v2.component("duoserve_stop", js=_source("stop_button.js"), isolate_styles=False)
_page = st.components.v2.component("duoserve_page", js=_source("page.js"))


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
