"""Which model answers, and the state of all."""

from typing import Any

import streamlit as st

from ui.components import model_picker
from ui.page_runs import fragment_place
from ui.router_client import ListedModel
from ui.session import ChatSession


def settle(chat: ChatSession) -> None:
    """Give the open conversation a model if it has none that can be chosen."""
    chosen, offered = chat.current.options, names(chat)
    if offered and (chosen.rival not in offered or chosen.rival == chosen.model):
        chosen.rival = ""
    if offered and chosen.model not in offered:
        preferred = chat.storage.preferences.model
        chosen.model = preferred if preferred in offered else offered[0]


def names(chat: ChatSession) -> list[str]:
    """The models that can chat; without a router only the chosen one."""
    chosen = chat.current.options.model
    return chat.backend.chat_models or ([chosen] if chosen else [])


def take_choice(chat: ChatSession) -> None:
    """Take over what was chosen in the picker, once.

    Not in a callback: Streamlit forgets those of a click when another follows at once, like the Enter of
    somebody quick, who would get an answer of the wrong model.
    """
    choice = (st.session_state.get("model") or {}).get("choice") or {}
    if not choice or choice["nonce"] == st.session_state.get("taken_choice"):
        return
    st.session_state.taken_choice = choice["nonce"]
    which, name = choice["for"], choice["name"]
    if which in ("model", "rival") and (name in names(chat) or (which == "rival" and not name)):
        setattr(chat.current.options, which, name)
        settle(chat)
        chat.options_changed()


def draw(chat: ChatSession) -> None:
    """The picker with the state of every model, kept up to date."""
    st.session_state.shown_models = _chosen(chat)
    with fragment_place():
        _picker(chat)


@st.fragment(run_every=2.0)
def _picker(chat: ChatSession) -> None:
    """Asks for the page again when a model was chosen or an answer or a title has come."""
    take_choice(chat)
    options = chat.current.options
    if chat.backend.readiness is None:
        st.markdown(
            ":red[○] router not reachable", help=f"No answer from {chat.backend.settings.router_url}."
        )
    model_picker(
        key="model",
        data={"models": entries(chat), "model": options.model, "rival": options.rival},
        on_choice_change=lambda: None,
    )
    waiting = bool(chat.current.answering) and not chat.answer
    if waiting:
        chat.resume()
    found = waiting and (chat.answer or not chat.current.answering)
    chosen = st.session_state.shown_models != _chosen(chat)
    if chosen or found or chat.news:
        st.rerun()


def _chosen(chat: ChatSession) -> tuple[str, str]:
    return chat.current.options.model, chat.current.options.rival


def entries(chat: ChatSession) -> list[dict[str, Any]]:
    """The models that can be chosen, as `model_picker.js` shows them."""
    readiness = chat.backend.readiness
    found = []
    for name in names(chat):
        known = chat.backend.listed(name) or ListedModel(name, name, 0)
        status = readiness.models[name] if readiness else None
        found.append(
            {
                "name": name,
                "real": known.real,
                "description": known.description,
                "window": known.window,
                "remote": known.provider,
                "state": status.state if status else "unknown",
                "reason": status.reason if status else "",
            }
        )
    return found
