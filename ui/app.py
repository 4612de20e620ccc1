"""The Streamlit script: what every page shares. Pages are in `views/`.

Not in `pages/`: from a folder of that name Streamlit serves each file by itself, without this script, to a
browser that comes back to a server which has just started.
"""

from pathlib import Path

import streamlit as st

from ui import components, settings, signin
from ui.service import Service
from ui.session import ChatSession

_HERE = Path(__file__).parent


@st.cache_resource(show_spinner=False)
def _service() -> Service:
    return Service(settings.load())


def _leave(chat: ChatSession) -> None:
    for answer in list(chat.answers.values()):
        chat.service.abandon(answer)


@st.cache_resource(scope="session", on_release=_leave, show_spinner=False)
def _present(_chat: ChatSession) -> ChatSession:
    """Streamlit releases this when the browser disconnects: nobody waits for the answers any more."""
    return _chat


def _session_has_ended() -> bool:
    """Whether this browser has signed out, in this tab or another, since it was let in."""
    chosen = settings.load()
    cookie = st.context.cookies.get(signin.COOKIE)
    return not chosen.only_this_machine and not signin.sessions(
        chosen.litellm_master_key.get_secret_value()
    ).valid(cookie)


if _session_has_ended():
    st.markdown("Signed out.")
    components.leave_for(signin.PATH)
    st.stop()
if "chat" not in st.session_state:
    st.session_state.chat = ChatSession(_service())
chat: ChatSession = _present(st.session_state.chat)
for answer in chat.answers.values():
    chat.service.keep(answer)

page = st.navigation(
    [
        st.Page("views/chat.py", title="Chat", default=True),
        st.Page("views/about.py", title="About this service", url_path="about"),
    ],
    position="hidden",
)
st.set_page_config(
    page_title=f"{page.title} · Duoserve", page_icon=str(_HERE / "icon.png"), layout="centered"
)
st.html(_HERE / "style.css")
page.run()
