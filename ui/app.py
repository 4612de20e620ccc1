"""The Streamlit script: what all pages share. The pages are in `views/`.

Not in `pages/`: Streamlit runs each file of a folder with that name by itself, without this script, when a
browser comes back to a server that has just started.
"""

import streamlit as st

from ui import backend, settings, signin
from ui.components import FRONTEND, leave_for
from ui.session import ChatSession


def _leave(chat: ChatSession) -> None:
    for answer in chat.unseen():
        chat.backend.abandon(answer)
    for title in chat.titles.values():
        chat.backend.stop(title)
        chat.backend.stored(title)


@st.cache_resource(scope="session", on_release=_leave, show_spinner=False)
def _present(_chat: ChatSession) -> ChatSession:
    """Streamlit releases this when the browser disconnects: nobody is waiting for the answers any more."""
    return _chat


def _session_has_ended() -> bool:
    """Whether this browser has signed out since it was let in, in this tab or another."""
    return signin.viewer(settings.load(), st.context.cookies.get(signin.COOKIE)) is None


def _draw_page() -> None:
    if "chat" not in st.session_state:
        st.session_state.chat = ChatSession(backend.shared())
    st.session_state.chat.key = signin.personal_key(settings.load(), st.context.cookies.get(signin.COOKIE))
    chat = _present(st.session_state.chat)
    for answer in chat.answers.values():
        chat.backend.keep(answer)
    page = st.navigation(
        [
            st.Page("views/chat.py", title="Chat", default=True),
            st.Page("views/about.py", title="About this service", url_path="about"),
            st.Page("views/usage.py", title="Usage", url_path="usage"),
        ],
        position="hidden",
    )
    st.set_page_config(
        page_title=f"{page.title} · Duoserve", page_icon=str(FRONTEND / "icon.png"), layout="centered"
    )
    for style in ("style.css", "lists.css"):
        st.html(FRONTEND / style)
    page.run()


if _session_has_ended():
    # No st.stop() here: after that, Streamlit would go on running the fragments of the page that is gone, and
    # a late one would leave a blank page instead of the sign-in.
    st.markdown("Signed out.")
    leave_for(signin.PATH)
else:
    _draw_page()
    if _session_has_ended():  # meanwhile: the browser has stored the answer that says so
        st.rerun()
