"""The chat page: its header, the input and the bar above it. Its other parts are in the modules beside it."""

import streamlit as st

from ui import attachments
from ui.components import focus_input, stop_button, went_to
from ui.conversation import Conversation
from ui.markdown import plain
from ui.page_runs import sync_storage
from ui.session import ChatSession
from ui.views import messages, models, options, palette, prompts, sidebar

# Which of the models each is for: the first, or the second if there is one.
_EXAMPLES = {
    "Write a Python function that merges overlapping intervals, with tests.": 0,
    "What does `git rebase --onto` do? Show one example.": 0,
    "Draft a short, friendly release note for a bug fix in our login page.": 1,
}


def _page(chat: ChatSession) -> None:
    _follow_address(chat)
    chat.collect()
    models.take_choice(chat)
    models.settle(chat)
    with st.bottom:
        above = st.container()
        bar = st.container(horizontal=True, vertical_alignment="center", key="bar")
        _input(chat)
    # After the input, so that a question is stored and listed before its answer is there.
    sync_storage(chat)
    sidebar.draw(chat)
    address = chat.opening or (chat.current.id if chat.current.messages else "")
    if address != st.session_state.address:
        st.session_state.address = address
        if address:
            st.query_params["c"] = address
        else:
            st.query_params.pop("c", None)
    draft = "" if chat.opening else chat.current.id if chat.current.messages else "new"
    focus_input(chat.opening or chat.current.id, draft)
    _header(chat)
    if not chat.current.messages and not chat.opening:
        if chat.problem:
            st.warning(chat.problem, icon=":material/link_off:")
        _welcome(chat)
    with above:
        _attached(chat)
    with bar:
        _bar(chat)
    messages.draw(chat)
    palette.draw(chat)
    prompts.mount(chat)


def _follow_address(chat: ChatSession) -> None:
    """Open the conversation that the address names: at first, and when somebody goes back or forward.

    Not whenever it differs from the open one: a run may begin with the address from before a click that it
    does not know of yet.
    """
    before = st.session_state.get("went")
    st.session_state.went = went = went_to() or before
    if "address" not in st.session_state:
        wanted = st.query_params.get("c", "")
        st.session_state.address = wanted
        if wanted:
            chat.open(wanted)
    elif went and went != before:
        st.session_state.address = went["address"]
        if went["address"]:
            chat.open(went["address"])
        else:
            chat.new()


def _input(chat: ChatSession) -> None:
    def ask() -> None:
        given = st.session_state.question
        if not given or not (given.text.strip() or given.files):
            return
        chat.collect()
        models.take_choice(chat)
        model = chat.current.options.model
        files = [(file.name, file.getvalue()) for file in given.files]
        taken, refused = attachments.read(files, model, chat.backend.sees(model))
        if (many := len(chat.attached) + len(taken)) > attachments.MAX_FILES:
            refused.append(
                f"{many} files are too many; attach at most {attachments.MAX_FILES} to a question."
            )
        st.session_state.refused = refused
        if refused:  # nothing is sent, and nothing lost
            chat.attached += taken
            st.session_state.question = given.text
        else:
            chat.ask(given.text.strip(), taken)

    st.chat_input(
        f"Ask {chat.current.options.model or 'a model'}",
        key="question",
        accept_file="multiple",
        max_upload_size=attachments.UPLOAD_MEGABYTES,
        disabled=bool(chat.opening),
        on_submit=ask,  # called whatever else happens at the same moment
    )


def _attached(chat: ChatSession) -> None:
    """Above the bar: why a question was not sent, and the files that wait for the next one."""
    if refused := st.session_state.get("refused"):
        st.error(
            f"Not sent. {plain(' '.join(refused))} Your text and the other files are kept.",
            icon=":material/error:",
        )
    if not chat.attached:
        return
    with st.container(horizontal=True, gap="small", key="attached"):
        for number, file in enumerate(chat.attached):
            st.button(
                plain(file.name),
                icon=":material/close:",
                key=f"detach-{number}",
                on_click=chat.attached.remove,
                args=(file,),
            )


def _header(chat: ChatSession) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="header"):
        models.draw(chat)
        st.space("stretch")
        options.draw(chat)
        if chat.current.id in chat.storage.conversations:
            options.draw_menu(chat)


def _welcome(chat: ChatSession) -> None:
    st.markdown("# What are you working on?", anchors=False)
    readiness = chat.backend.readiness
    if readiness:
        described = [
            each for each in chat.backend.models if each.name == each.root and each.description and each.chats
        ]
        st.markdown(
            "\n".join(
                f"- **{plain(chat.backend.title(each.name))}** for {plain(each.description)}"
                for each in described
            )
        )
    kinds = (
        "text files, PDFs or pictures"
        if chat.backend.sees(chat.current.options.model)
        else "text files or PDFs"
    )
    st.caption(
        f"Attach up to {attachments.MAX_FILES} {kinds} with +. "
        "Enter sends, Shift+Enter starts a new line, Esc stops an answer."
    )

    def ask(model: str, question: str) -> None:
        if readiness and model in readiness.models:
            chat.current.options.model = model
        chat.ask(question)

    examples = st.container(key="examples", gap="small")
    offered = models.names(chat) or [""]
    for question, number in _EXAMPLES.items():
        model = offered[min(number, len(offered) - 1)]
        examples.button(
            (f":gray[{plain(chat.backend.title(model))}] " if model else "") + question,
            on_click=ask,
            args=(model, question),
            type="secondary",
            width="stretch",
            key=f"try-{question}",
        )
    st.page_link("views/about.py", label="Use the models in your editor", icon=":material/code:")


def _bar(chat: ChatSession) -> None:
    """What goes above the input: Stop, Undo, and how full the context is."""
    if chat.answer:
        stop_button(chat.answer.id)
    if chat.undoable:
        st.caption(plain(chat.undoable.notice))
        st.button("Undo", icon=":material/undo:", type="tertiary", on_click=chat.undo, key="undo")
    limit, used = _prompt_limit(chat, chat.current), chat.current.context_tokens
    if limit and chat.current.messages:
        st.space("stretch")
        share = used / limit
        colour = "red" if share > 1 else "orange" if share > 0.8 else "gray"
        st.markdown(
            f":small[:{colour}[context {used:,} / {limit:,} tokens ({share:.0%})]]"
            if used
            else f":small[:gray[context of {limit:,} tokens]]",
            help="Tokens in this conversation, as counted by the model, and how many fit into a prompt. "
            "Beyond that, the oldest messages are left out.",
            width="content",
        )


def _prompt_limit(chat: ChatSession, conversation: Conversation) -> int:
    """Tokens that a prompt may have; 0 if the model's window is unknown."""
    window = chat.backend.windows.get(conversation.options.model, 0)
    return int(window * chat.backend.settings.context_ratio)


_page(st.session_state.chat)
