"""What people ask again and again: default instructions, and prompts that a "/" inserts."""

import streamlit as st

from ui.components import prompt_menu
from ui.markdown import plain
from ui.page_runs import key_of, renew
from ui.session import ChatSession


def mount(chat: ChatSession) -> None:
    """Have the input offer the prompts."""
    prompt_menu(
        key="prompts", data={"prompts": [each.model_dump() for each in chat.storage.preferences.prompts]}
    )


def draw(chat: ChatSession) -> None:
    """The instructions and the prompts, to be changed."""
    preferences, key = chat.storage.preferences, key_of("prompt")

    def instruct() -> None:
        chat.instruct(st.session_state.instructions)

    def save(name: str) -> None:
        if key == key_of("prompt"):
            chat.save_prompt(name, st.session_state[f"{key}-{name}"])

    def delete(name: str) -> None:
        chat.delete_prompt(name)
        renew("prompt")

    with st.popover("Prompts", icon=":material/edit_note:", type="tertiary"):
        st.text_area(
            "Default instructions",
            preferences.instructions,
            key="instructions",
            max_chars=20_000,
            height=100,
            placeholder="The system prompt with which new conversations begin.",
            on_change=instruct,
        )
        texts = {prompt.name: prompt.text for prompt in preferences.prompts}
        chosen = st.selectbox(
            "Prompts for /",
            list(texts),
            index=None,
            placeholder="Choose one, or type a new name",
            accept_new_options=True,
            key=key,
        )
        if not chosen:
            return
        st.text_area(
            "Text",
            texts.get(chosen, ""),
            key=f"{key}-{chosen}",
            max_chars=20_000,
            height=140,
            placeholder="Translate into {{language}}: {{text}}",
            help="What is in {{double braces}} is asked for before the prompt is inserted.",
            on_change=save,
            args=(chosen,),
        )
        if chosen in texts:
            st.button(f"Delete “{plain(chosen)}”", type="tertiary", on_click=delete, args=(chosen,))
