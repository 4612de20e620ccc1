"""The chat page: draws the open conversation and streams its answer."""

import time

import streamlit as st

from ui import attachments, components, sidebar
from ui.answers import Answer
from ui.conversation import Conversation, Message, export
from ui.markdown import plain, presentable
from ui.session import ChatSession
from ui.storage import Preset

_SILENT = 5  # seconds without a token after which a growing answer says so
_SHOWN = 40  # messages of a long conversation that are drawn at first
_SIGN = {"ready": ":green[●]", "loading": ":orange[◐]", "down": ":red[○]"}
_PURPOSE = {
    "coder": "code: write, explain, review, complete",
    "general": "everything else: text, plans, questions",
}
_EXAMPLES = {
    "coder": [
        "Write a Python function that merges overlapping intervals, with tests.",
        "What does `git rebase --onto` do? Show one example.",
    ],
    "general": ["Draft a short, friendly release note for a bug fix in our login page."],
}
chat: ChatSession = st.session_state.chat


def _page() -> None:
    shows_end = components.page_begins()
    if chat.storage.loaded and "opened" not in st.session_state:
        st.session_state.opened = True
        # The address names the conversation, so that a reload opens it again.
        if (wanted := st.query_params.get("c", "")) in chat.storage.conversations:
            chat.open(wanted)
    chat.collect()
    models = _models()
    with st.bottom:
        bar = st.container(horizontal=True, vertical_alignment="center", key="bar")
        _input()
    # Behind the input, so that a question is kept and listed before its answer is there.
    components.keep_in_browser(chat)
    sidebar.draw(chat)
    if chat.current.messages:
        st.query_params["c"] = chat.current.id
    elif "c" in st.query_params and "opened" in st.session_state:
        del st.query_params["c"]
    components.focus_input(chat.current.id)
    _header(models)
    if not chat.current.messages:
        _welcome()
    _messages()
    with bar:
        _bar()
    if chat.answer:
        _follow(chat.answer)
        chat.collect()
        components.draw_end()
    components.page_ends(shows_end)


def _input() -> None:
    st.chat_input(
        f"Ask {chat.current.options.model or 'a model'}",
        key="question",
        accept_file="multiple",
        file_type=attachments.TYPES,
        max_upload_size=1,
        on_submit=_ask,  # which is called whatever else happens in the same instant
    )


def _ask() -> None:
    given = st.session_state.question
    if not given or not (given.text.strip() or given.files):
        return
    chat.collect()
    try:
        attached = attachments.read([(file.name, file.getvalue()) for file in given.files])
    except attachments.Refused as problem:
        st.session_state.refused = str(problem), given.text
    else:
        chat.ask(given.text.strip(), attached)


def _limit(conversation: Conversation) -> int:
    return int(chat.service.windows.get(conversation.options.model, 0) * chat.service.settings.context_ratio)


def _models() -> list[str]:
    """The models to choose from; a conversation that has none of them gets one."""
    options, readiness = chat.current.options, chat.service.readiness
    models = sorted(readiness.models) if readiness else sorted(_PURPOSE)
    if options.model not in models:
        preferred = chat.storage.preferences.model
        options.model = preferred if preferred in models else models[0]
    return models


def _header(models: list[str]) -> None:
    options = chat.current.options

    def choose() -> None:
        options.model = st.session_state[key]
        chat.options_changed()

    with st.container(horizontal=True, vertical_alignment="center", key="header"):
        key = f"model-{chat.current.id}"
        st.segmented_control(
            "Model",
            models,
            default=options.model,
            required=True,
            key=key,
            on_change=choose,
            label_visibility="collapsed",
            help=" · ".join(f"**{name}**: {_PURPOSE[name]}" for name in models if name in _PURPOSE) or None,
        )
        with components.place_of_its_own():
            _state()
        st.space("stretch")
        _options(chat.current)
        if chat.current.id in chat.storage.conversations:
            _menu(chat.current)


@st.fragment(run_every=2.0)
def _state() -> None:
    """Which models serve; asks for a redraw when an answer of another conversation has come."""
    components.draw_end_if_lost()
    readiness = chat.service.readiness
    if readiness is None:
        st.markdown(":red[○] router not reachable", help=f"No answer from {chat.service.settings.router}.")
    else:
        lines = [
            f"{_SIGN[status.state]} {name} {status.state}"
            for name, status in sorted(readiness.models.items())
        ]
        why = "  \n".join(
            f"{name}: {plain(status.reason)}" for name, status in sorted(readiness.models.items())
        )
        selected = readiness.models.get(chat.current.options.model)
        st.markdown(
            " · ".join(lines)
            if any(each.state != "ready" for each in readiness.models.values())
            else f"{_SIGN[selected.state]} ready"
            if selected
            else "",
            help=why,
        )
    waiting = bool(chat.current.answering) and not chat.answer
    if waiting:
        chat.resume()
    if any(answer.ended for answer in chat.answers.values()) or (waiting and chat.answer):
        st.rerun()


def _options(conversation: Conversation) -> None:
    options, this = conversation.options, conversation.id

    def change(name: str) -> None:
        setattr(options, name, st.session_state[f"{name}-{this}"])
        chat.options_changed()

    def apply() -> None:
        chosen = st.session_state[f"preset-{this}"]
        found = [preset.system for preset in chat.storage.preferences.presets if preset.name == chosen]
        options.system = found[0] if found else ""
        st.session_state[f"system-{this}"] = options.system
        chat.options_changed()

    def sample() -> None:
        own = st.session_state[f"own-{this}"]
        options.temperature, options.top_p = (0.7, 0.95) if own else (None, None)
        chat.options_changed()

    with st.popover("Options", icon=":material/tune:", type="tertiary"):
        presets = {preset.name: preset.system for preset in chat.storage.preferences.presets}
        st.selectbox(
            "Preset",
            list(presets),
            index=next((at for at, system in enumerate(presets.values()) if system == options.system), None),
            placeholder="None",
            key=f"preset-{this}",
            on_change=apply,
        )
        st.text_area(
            "System prompt",
            options.system,
            key=f"system-{this}",
            max_chars=20_000,
            height=100,
            placeholder="How the model should answer in this conversation.",
            on_change=change,
            args=("system",),
        )
        own = st.toggle(
            "Own sampling",
            options.temperature is not None,
            key=f"own-{this}",
            on_change=sample,
            help="Otherwise temperature and top p are those that the model is served with.",
        )
        if own:
            st.slider(
                "Temperature",
                0.0,
                2.0,
                options.temperature or 0.0,
                0.05,
                key=f"temperature-{this}",
                on_change=change,
                args=("temperature",),
                help="0 answers alike every time; above 1 becomes erratic.",
            )
            st.slider(
                "Top p",
                0.05,
                1.0,
                options.top_p or 1.0,
                0.05,
                key=f"top_p-{this}",
                on_change=change,
                args=("top_p",),
                help="Only the likeliest words that together have this probability are considered.",
            )
        st.number_input(
            "Longest answer (tokens)",
            16,
            32768,
            options.max_tokens,
            256,
            key=f"max_tokens-{this}",
            on_change=change,
            args=("max_tokens",),
            help="A cut answer can be continued.",
        )
        if st.button("Edit presets", icon=":material/edit:", type="tertiary"):
            _edit_presets()


@st.dialog("Presets")
def _edit_presets() -> None:
    presets = chat.storage.preferences.presets
    at = st.selectbox(
        "Preset to edit",
        range(len(presets) + 1),
        format_func=lambda at: presets[at].name if at < len(presets) else "A new one",
    )
    old = presets[at] if at < len(presets) else Preset(name="", system="")
    name = st.text_input("Name", old.name, max_chars=60, key=f"preset-name-{at}").strip()
    system = st.text_area(
        "Text of the preset", old.system, max_chars=20_000, height=160, key=f"preset-system-{at}"
    ).strip()
    with st.container(horizontal=True):
        save = st.button("Save", type="primary")
        delete = at < len(presets) and st.button("Delete preset", type="tertiary")
    others = presets[:at] + presets[at + 1 :]
    if save and not (name and system):
        st.error("A preset needs a name and a text.")
    elif save and name in [other.name for other in others]:
        st.error("Another preset has this name.")
    elif save or delete:
        kept = [Preset(name=name, system=system)] if save else []
        chat.storage.preferences.presets = presets[:at] + kept + presets[at + 1 :]
        chat.storage.save_preferences()
        st.rerun()


def _menu(conversation: Conversation) -> None:
    this = conversation.id

    def rename() -> None:
        chat.rename(this, st.session_state[f"title-{this}"])

    with st.popover("More", icon=":material/more_horiz:", type="tertiary"):
        st.text_input("Title", conversation.title, key=f"title-{this}", on_change=rename, max_chars=200)
        st.button(
            "Unpin" if conversation.pinned else "Pin",
            icon=":material/keep:",
            on_click=chat.pin,
            args=(this,),
            width="stretch",
            type="tertiary",
        )
        name = (
            "".join(letter if letter.isalnum() else "-" for letter in conversation.name).strip("-")[:60]
            or "chat"
        )
        st.download_button(
            "Export as Markdown",
            conversation.as_markdown,
            f"{name}.md",
            "text/markdown",
            on_click="ignore",
            icon=":material/download:",
            width="stretch",
            type="tertiary",
        )
        st.download_button(
            "Export as JSON",
            lambda: export([conversation]),
            f"{name}.json",
            "application/json",
            on_click="ignore",
            icon=":material/data_object:",
            width="stretch",
            type="tertiary",
        )
        st.button(
            "Delete",
            icon=":material/delete:",
            on_click=chat.delete,
            args=(this,),
            width="stretch",
            type="tertiary",
            key="delete-conversation",
        )


def _welcome() -> None:
    st.markdown("## What are you working on?", anchors=False)
    readiness = chat.service.readiness
    if readiness:
        lines = [
            f"- **{name}** for {_PURPOSE[name]}" for name in sorted(readiness.models) if name in _PURPOSE
        ]
        st.markdown("\n".join(lines))
    st.caption(
        f"Attach text and code files with +: up to {attachments.MAX_FILES} files of "
        f"{attachments.MAX_KILOBYTES} KB. Enter sends, Shift+Enter breaks the line, Esc stops an answer."
    )
    examples = st.container(key="examples", gap="small")
    for model, questions in _EXAMPLES.items():
        for question in questions:

            def ask(model: str = model, question: str = question) -> None:
                if readiness and model in readiness.models:
                    chat.current.options.model = model
                chat.ask(question)

            examples.button(
                f":gray[{model}] {plain(question)}",
                on_click=ask,
                type="secondary",
                width="stretch",
                key=f"try-{question}",
            )
    st.page_link("views/about.py", label="Use both models in your editor", icon=":material/code:")


def _messages() -> None:
    messages = chat.current.messages
    first = 0
    if len(messages) > _SHOWN and not st.session_state.get(f"whole-{chat.current.id}"):
        first = len(messages) - _SHOWN
        st.toggle(f"Show {first} earlier messages", key=f"whole-{chat.current.id}")
    kept = chat.current.first_kept()
    answering = chat.answer
    for index in range(first, len(messages)):
        message = messages[index]
        if index == kept:
            st.markdown(
                f":small[:gray[:material/content_cut: The {kept} messages above no longer fit: "
                "the last answer was given without them.]]",
                text_alignment="center",
            )
        if answering and message.role == "assistant" and index == len(messages) - 1:
            break  # it is being continued: the stream shows it
        if message.role == "user":
            _question(index, message)
        else:
            _answer(index, message)
    if messages and messages[-1].role == "user" and not answering:
        _unanswered()


def _question(index: int, message: Message) -> None:
    with st.chat_message("user", avatar=":material/person:"):
        if chat.editing == index:
            text = st.text_area("Edit the question", message.text, key=f"edit-{chat.current.id}-{index}")
            names = [attached.name for attached in message.attachments]
            kept = st.multiselect("Attached", names, names) if names else []
            with st.container(horizontal=True):
                if st.button("Ask again", disabled=not (text.strip() or kept)):
                    chat.edit(index, text.strip(), kept)
                    st.rerun()
                if st.button("Cancel"):
                    chat.editing = None
                    st.rerun()
            return
        if "```" in message.text:
            st.markdown(presentable(message.text))
        elif message.text:
            st.text(message.text)
        for attached in message.attachments:
            with st.expander(
                f"{plain(attached.name)} · {len(attached.text.encode()) / 1024:.1f} KB",
                icon=":material/attach_file:",
            ):
                st.code(attached.text, language=None, line_numbers=True)
        _question_actions(index, message)


def _question_actions(index: int, message: Message) -> None:
    this = f"{chat.current.id}-{index}"

    def edit() -> None:
        chat.editing = index

    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"actions-{this}"):
        st.button(":gray[Edit]", key=f"start-edit-{this}", type="tertiary", on_click=edit)
        components.copy_button(message.text, f"copy-{this}", "Copy the question")
        st.button(
            ":gray[Delete]",
            key=f"delete-{this}",
            type="tertiary",
            on_click=chat.delete_turn,
            args=(index,),
            help="Delete this question and its answer",
        )


def _answer(index: int, message: Message) -> None:
    last = index == len(chat.current.messages) - 1
    this = f"{chat.current.id}-{index}"
    with st.chat_message("assistant", avatar=":material/smart_toy:"):
        if message.reasoning:
            with st.expander("Reasoning", icon=":material/psychology:"):
                st.markdown(presentable(message.reasoning))
        if message.text:
            st.markdown(presentable(message.text))
        if message.ending == "failed":
            _failure(message, last)
        elif message.ending == "stopped":
            st.caption("Stopped." if message.text else "Stopped before the answer began.")
        elif message.ending == "length":
            st.caption("Cut at the longest answer allowed (see Options).")
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"actions-{this}"):
            if message.text:
                components.copy_button(message.text, f"copy-{this}", "Copy the answer")
            if last and message.ending != "failed":
                st.button(":gray[Regenerate]", key=f"again-{this}", type="tertiary", on_click=chat.retry)
            if last and message.text and message.ending in ("length", "stopped", "failed"):
                st.button(":gray[Continue]", key=f"go-on-{this}", type="tertiary", on_click=chat.go_on)
            st.markdown(f":small[:gray[{_measured(message)}]]", width="content")


def _measured(message: Message) -> str:
    parts = [plain(message.model)]
    if message.ttft is not None:
        parts.append(f"first token {message.ttft:.2f} s")
    if speed := message.tokens_per_second:
        parts.append(f"{speed:.0f} tokens/s")
    if message.completion_tokens:
        parts.append(f"{message.completion_tokens:,} tokens")
    return " · ".join(parts)


def _failure(message: Message, last: bool) -> None:
    if not last:
        st.caption(f":material/error: {plain(message.failure)}")
        return
    st.warning(plain(message.failure), icon=":material/error:")
    if message.failure_kind == "size":  # asking the same again would fail again
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

    with components.place_of_its_own():
        retry()


def _unanswered() -> None:
    with st.chat_message("assistant", avatar=":material/smart_toy:"):
        if chat.current.answering and chat.service.is_running(chat.current.answering):
            st.caption("Being answered in another tab …")
            return
        st.caption("There is no answer to this question yet.")
        st.button("Answer it", icon=":material/refresh:", key="retry", on_click=chat.retry)


def _bar() -> None:
    if refused := st.session_state.get("refused"):
        st.error(plain(refused[0]))
        st.session_state.question = refused[1]
        del st.session_state.refused
    if chat.answer:
        st.button("Stop", icon=":material/stop_circle:", shortcut="Esc", on_click=chat.stop, key="stop")
    if chat.undoable:
        st.caption(plain(chat.undoable.said))
        st.button("Undo", icon=":material/undo:", type="tertiary", on_click=chat.undo, key="undo")
    limit, used = _limit(chat.current), chat.current.context_tokens
    if limit and chat.current.messages:
        st.space("stretch")
        share = used / limit
        colour = "red" if share > 1 else "orange" if share > 0.8 else "gray"
        st.markdown(
            f":small[:{colour}[context {used:,} / {limit:,} tokens ({share:.0%})]]"
            if used
            else f":small[:gray[context of {limit:,} tokens]]",
            help="Tokens of this conversation, counted by the model, and how many are taken along. "
            "Beyond that the oldest messages are left out.",
            width="content",
        )


def _follow(answer: Answer) -> None:
    """Draw the running answer until it has ended. A click interrupts this; the next run goes on with it."""
    with st.chat_message("assistant", avatar=":material/smart_toy:"):
        thoughts, text, note = st.container(), st.empty(), st.empty()
        thought = None
        said = ""

        def idle() -> None:
            nonlocal said
            if (now := _waiting(answer)) != said:
                note.caption(now)
                said = now
            _ = st.session_state.chat  # where Streamlit notices that somebody clicked

        for message in answer.updates(idle):
            if message.reasoning and thought is None:
                thought = thoughts.expander("Reasoning", icon=":material/psychology:", expanded=True).empty()
            if thought is not None and not message.text:
                thought.markdown(presentable(message.reasoning))
            if said and (message.text or message.reasoning):
                note.empty()
                said = ""
            if message.text:
                text.markdown(presentable(message.text))


def _waiting(answer: Answer) -> str:
    seconds = int(answer.waited)
    model = plain(answer.request.model)
    if answer.phase == "loading":
        return f":material/hourglass_top: {model} is loading and your question waits ({seconds} s)."
    if answer.phase == "answering":
        silent = int(answer.silent)
        return f":material/hourglass_top: Nothing has come for {silent} s." if silent >= _SILENT else ""
    queue = chat.service.waiting(answer.request.model)
    if seconds >= 2 and queue:
        return f":material/hourglass_top: Waiting for a free place: {queue} in the queue ({seconds} s)."
    return f":material/hourglass_top: {model} is reading … {seconds} s" if seconds else ""


_page()
