"""The messages of the open conversation, as `transcript.js` draws them, and what people do with them."""

import time
from typing import Any

import streamlit as st

from ui.components import transcript
from ui.conversation import Attachment, Message
from ui.markdown import code_html, to_html
from ui.session import ChatSession

_PAGE = 40  # messages that are drawn at first, and with each step back


def draw(chat: ChatSession) -> None:
    """The conversation with the answer that is growing; carries out what its buttons ask for."""
    conversation = chat.current
    pages = f"pages-{conversation.id}"

    def act() -> None:
        action = st.session_state["messages"].action or {}
        if action.get("do") == "earlier":
            st.session_state[pages] = st.session_state.get(pages, 1) + 1
        elif action.get("conversation") == chat.current.id:
            _act(chat, action)

    shown = _PAGE * st.session_state.get(pages, 1)
    transcript(
        key="messages",
        data={
            "conversation": conversation.id,
            "title": conversation.name,
            "earlier": max(0, len(conversation.messages) - shown),
            "page": _PAGE,
            "messages": entries(chat, shown),
            "growing": chat.answer.id if chat.answer else "",
            "model": chat.answer.request.model if chat.answer else "",
            "beside": _beside(chat),
        },
        on_action_change=act,
    )


def _beside(chat: ChatSession) -> dict[str, str] | None:
    other = chat.answer.beside if chat.answer else None
    return {"id": other.id, "model": other.request.model} if other else None


def _act(chat: ChatSession, action: dict[str, Any]) -> None:
    name, index = action.get("do"), action.get("index", -1)
    if name == "edit" and 0 <= index < len(chat.current.messages):
        chat.edit(index, action["text"].strip(), action["kept"])
    elif name == "delete" and 0 <= index < len(chat.current.messages):
        chat.delete_turn(index)
    elif name == "version" and 0 <= index <= len(chat.current.messages):
        if 0 <= (number := int(action["number"])) < chat.current.versions(index).count:
            chat.show_version(index, number)
    elif name == "vote" and 0 <= index < len(chat.current.messages):
        chat.vote(index, action["vote"])
    elif name == "retry" and chat.current.messages:
        chat.retry()
    elif name == "continue" and chat.current.messages:
        chat.go_on()


def entries(chat: ChatSession, shown: int = _PAGE) -> list[dict[str, Any]]:
    """The last `shown` messages, without the answer that is growing, as the browser draws them."""
    messages = chat.current.messages
    kept = chat.current.first_kept()
    found = []
    for index in range(max(0, len(messages) - shown), len(messages)):
        message, last = messages[index], index == len(messages) - 1
        if chat.answer and last and message.role == "assistant":
            break  # it is being continued
        entry = _question(message) if message.role == "user" else _answer(message, last)
        if index == kept:
            entry["above"] = (
                f"The {kept} messages above no longer fit: the last answer was generated without them."
            )
        found.append(
            {"index": index, "role": message.role, "text": message.text} | _version(chat, index) | entry
        )
    if messages and messages[-1].role == "user" and not chat.answer:
        elsewhere = chat.current.answering and chat.backend.knows(chat.current.answering)
        waiting = {"note": "Another tab is generating this answer …", "actions": []}
        nothing = {"note": "No answer yet.", "actions": [["retry", "Get an answer"]]}
        found.append(
            {"index": len(messages), "role": "assistant", "text": ""}
            | _version(chat, len(messages))
            | (waiting if elsewhere else nothing)
        )
    return found


def _version(chat: ChatSession, index: int) -> dict[str, Any]:
    versions = chat.current.versions(index)
    return {"version": versions.at, "versions": versions.count} if versions.others else {}


def _question(message: Message) -> dict[str, Any]:
    return {
        "html": to_html(message.text) if "```" in message.text else "",
        "files": [_file(each) for each in message.attachments],
        "actions": [["edit", "Edit"], ["copy", "Copy"], ["delete", "Delete"]],
    }


def _file(attached: Attachment) -> dict[str, str]:
    if attached.picture:
        return {"name": attached.name, "picture": attached.picture}
    read_as = f" · read as {attached.encoding}" if attached.encoding else ""
    label = f"{attached.name} · {len(attached.text.encode()) / 1024:.1f} KB{read_as}"
    language = attached.name.rpartition(".")[2] if "." in attached.name else ""
    return {"name": attached.name, "label": label, "html": code_html(attached.text, language)}


def _answer(message: Message, last: bool) -> dict[str, Any]:
    entry = _one_answer(message, last)
    if message.beside:
        other = message.beside
        entry["beside"] = {"text": other.text, "model": other.model} | _one_answer(other, False)
        entry["beside"]["actions"] = []
        entry |= {"model": message.model, "vote": message.vote}
        entry["actions"] = [each for each in entry["actions"] if each[0] == "retry"]
    return entry


def _one_answer(message: Message, last: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "html": to_html(message.text),
        "reasoning": to_html(message.reasoning),
        "figures": _figures(message),
    }
    actions = [["copy", "Copy"]] if message.text else []
    if message.ending == "failed":
        entry["failure"] = message.failure
        if last and message.failure_kind != "size":  # the same question would fail again
            actions.append(["retry", "Try again"])
            entry["wait"] = max(0.0, message.retry_at - time.time())
    elif message.ending == "stopped":
        entry["note"] = "Stopped." if message.text else "Stopped before the answer began."
    elif message.ending == "length":
        entry["note"] = "Cut off at the max response length (see Options)."
    if last and message.ending != "failed":
        actions.append(["retry", "Regenerate"])
    if last and message.text and message.ending in ("length", "stopped", "failed"):
        actions.append(["continue", "Continue"])
    return entry | {"actions": actions}


def _figures(message: Message) -> str:
    parts = [message.model]
    if message.ttft is not None:
        parts.append(f"first token {message.ttft:.2f} s")
    if speed := message.tokens_per_second:
        parts.append(f"{speed:.0f} tokens/s")
    if message.completion_tokens:
        parts.append(f"{message.completion_tokens:,} token{'s' if message.completion_tokens != 1 else ''}")
    return " · ".join(parts)
