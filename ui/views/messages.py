"""The messages of the open conversation, and the answer that is growing.

While an answer grows, the run of the page goes on, and until it ends Streamlit keeps everything on screen
that an earlier run drew and this one has not replaced. So every message has the same four places, filled or
not, and `follow` clears what is left of a conversation that was longer.
"""

import time

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.answers import Answer
from ui.components import copy_button, keep_partial
from ui.conversation import Message
from ui.markdown import JOINER, plain, presentable
from ui.page_runs import fragment_place, let_clicks_interrupt
from ui.session import ChatSession

_SILENT = 5  # seconds without output after which a growing answer says so
_KEPT_EVERY = 2.0  # seconds after which the browser keeps what has come of a growing answer
_SHOWN = 40  # messages of a long conversation that are drawn at first
_PERSON, _MODEL, _WAIT = ":material/person:", ":material/smart_toy:", ":material/hourglass_top:"


def draw(chat: ChatSession) -> None:
    """The messages, up to an answer that is being generated: `follow` draws that."""
    messages = chat.current.messages
    first, drawn = 0, 0
    if len(messages) > _SHOWN and not st.session_state.get(f"whole-{chat.current.id}"):
        first, drawn = len(messages) - _SHOWN, 1
        st.toggle(f"Show {first} earlier messages", key=f"whole-{chat.current.id}")
    kept = chat.current.first_kept()
    for index in range(first, len(messages)):
        message = messages[index]
        if index == kept:
            drawn += 1
            st.markdown(
                f":small[:gray[:material/content_cut: The {kept} messages above no longer fit: "
                "the last answer was generated without them.]]",
                text_alignment="center",
            )
        if chat.answer and message.role == "assistant" and index == len(messages) - 1:
            break  # it is being continued
        drawn += 1
        if message.role == "user":
            _question(chat, index, message)
        else:
            _answer(chat, index, message)
    if messages and messages[-1].role == "user" and not chat.answer:
        drawn += 1
        _unanswered(chat)
    before, st.session_state.drawn = st.session_state.get("drawn", 0), drawn
    st.session_state.left_over = max(0, before - drawn)


def follow(chat: ChatSession, answer: Answer) -> None:
    """Draw the running answer until it has ended. A click interrupts this; its run goes on with it."""
    with st.chat_message("assistant", avatar=_MODEL):
        thoughts, text, note, kept = st.empty(), st.empty(), st.empty(), st.empty()
    for _ in range(st.session_state.left_over):
        st.empty()
    st.session_state.drawn += 1
    thought = None
    noted = ""
    due = _KEPT_EVERY
    for more in answer.updates():
        let_clicks_interrupt()
        if (now := _progress(chat, answer)) != noted:
            noted = now
            if now:
                note.caption(f"{_WAIT} {now}")
            else:
                note.empty()
        if not more:
            continue
        message = answer.message
        if message.reasoning and thought is None:
            thought = thoughts.expander("Reasoning", icon=":material/psychology:", expanded=True).empty()
        if thought is not None and not message.text:
            _markdown(message.reasoning, thought)
        if message.text:
            _markdown(message.text, text)
        if answer.waited > due:
            due = answer.waited + _KEPT_EVERY
            with kept:
                keep_partial(
                    f"partial-{answer.id}-{due}",
                    answer.conversation,
                    answer.id,
                    message.model_dump(mode="json"),
                )


def _markdown(text: str, place: DeltaGenerator | None = None) -> None:
    """Draw what somebody wrote in Markdown."""
    # Streamlit replaces this everywhere, even in code, where a word joiner is the only defence; what is
    # copied comes without it (see frontend/page.js).
    (place or st).markdown(presentable(text).replace(":material/", f":{JOINER}material/"))


def _progress(chat: ChatSession, answer: Answer) -> str:
    """What to tell while no output arrives; empty while it does, and in the first moment."""
    seconds = int(answer.waited)
    model = plain(answer.request.model)
    if answer.phase == "loading":
        return f"{model} is loading. Your question is waiting ({seconds} s)."
    if answer.phase == "sent":
        queue = chat.backend.waiting(answer.request.model)
        if seconds >= 2 and queue:
            return f"In queue: {queue} waiting ({seconds} s)"
        return f"{model} is reading … {seconds} s" if seconds else ""
    silent = int(answer.silent)
    return f"No output for {silent} s." if answer.phase == "answering" and silent >= _SILENT else ""


def _question(chat: ChatSession, index: int, message: Message) -> None:
    with st.chat_message("user", avatar=_PERSON):
        text, files, _ = st.empty(), st.empty(), st.empty()
        if chat.editing == index:
            with text.container():
                _editor(chat, index, message)
            return
        with text.container():
            if "```" in message.text:
                _markdown(message.text)
            elif message.text:
                st.text(message.text)
            # Where the editor was, its other parts are replaced too.
            st.empty()
            st.empty()
        with files.container():
            for attached in message.attachments:
                read_as = f" · read as {attached.encoding}" if attached.encoding else ""
                with st.expander(
                    f"{plain(attached.name)} · {len(attached.text.encode()) / 1024:.1f} KB{read_as}",
                    icon=":material/attach_file:",
                ):
                    st.code(attached.text, language=None, line_numbers=True)
        _question_actions(chat, index, message)


def _editor(chat: ChatSession, index: int, message: Message) -> None:
    text = st.text_area("Edit the question", message.text, key=f"edit-{chat.current.id}-{index}")
    names = [attached.name for attached in message.attachments]
    kept = st.multiselect("Attachments", names, names) if names else []
    with st.container(horizontal=True):
        if st.button("Ask again", disabled=not (text.strip() or kept)):
            chat.edit(index, text.strip(), kept)
            st.rerun()
        if st.button("Cancel"):
            chat.editing = None
            st.rerun()


def _question_actions(chat: ChatSession, index: int, message: Message) -> None:
    this = f"{chat.current.id}-{index}"

    def edit() -> None:
        chat.editing = index

    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"actions-{this}"):
        st.button(":gray[Edit]", key=f"start-edit-{this}", type="tertiary", on_click=edit)
        copy_button(message.text, f"copy-{this}", "Copy the question")
        st.button(
            ":gray[Delete]",
            key=f"delete-{this}",
            type="tertiary",
            on_click=chat.delete_turn,
            args=(index,),
            help="Delete this question and its answer",
        )


def _answer(chat: ChatSession, index: int, message: Message) -> None:
    last = index == len(chat.current.messages) - 1
    this = f"{chat.current.id}-{index}"
    with st.chat_message("assistant", avatar=_MODEL):
        thoughts, text, note = st.empty(), st.empty(), st.empty()
        if message.reasoning:
            with thoughts.expander("Reasoning", icon=":material/psychology:"):
                _markdown(message.reasoning)
        if message.text:
            _markdown(message.text, text)
        if message.ending == "failed":
            with note.container():
                _failure(chat, message, last)
        elif message.ending == "stopped":
            note.caption("Stopped." if message.text else "Stopped before the answer began.")
        elif message.ending == "length":
            note.caption("Cut off at the max response length (see Options).")
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"actions-{this}"):
            copy, again, go_on = st.empty(), st.empty(), st.empty()
            if message.text:
                with copy:
                    copy_button(message.text, f"copy-{this}", "Copy the answer")
            if last and message.ending != "failed":
                again.button(":gray[Regenerate]", key=f"again-{this}", type="tertiary", on_click=chat.retry)
            if last and message.text and message.ending in ("length", "stopped", "failed"):
                go_on.button(":gray[Continue]", key=f"go-on-{this}", type="tertiary", on_click=chat.go_on)
            st.markdown(f":small[:gray[{_figures(message)}]]", width="content")


def _figures(message: Message) -> str:
    parts = [plain(message.model)]
    if message.ttft is not None:
        parts.append(f"first token {message.ttft:.2f} s")
    if speed := message.tokens_per_second:
        parts.append(f"{speed:.0f} tokens/s")
    if message.completion_tokens:
        parts.append(f"{message.completion_tokens:,} tokens")
    return " · ".join(parts)


def _failure(chat: ChatSession, message: Message, last: bool) -> None:
    if not last:
        st.caption(f":material/error: {plain(message.failure)}")
        return
    st.warning(plain(message.failure), icon=":material/error:")
    if message.failure_kind == "size":  # the same question would fail again
        return
    waiting = message.retry_at > time.time()

    @st.fragment(run_every=1.0 if waiting else None)
    def retry() -> None:
        left = round(message.retry_at - time.time())
        again = st.button(
            f"Try again in {left} s" if left > 0 else "Try again",
            icon=":material/refresh:",
            disabled=left > 0,
            key="retry",
        )
        if again:
            chat.retry()
        if again or (waiting and left <= 0):
            st.rerun()

    with fragment_place():
        retry()


def _unanswered(chat: ChatSession) -> None:
    with st.chat_message("assistant", avatar=_MODEL):
        if chat.current.answering and chat.backend.is_running(chat.current.answering):
            st.caption("Another tab is generating this answer …")
            return
        st.caption("No answer yet.")
        st.button("Get an answer", icon=":material/refresh:", key="retry", on_click=chat.retry)
