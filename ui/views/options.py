"""What belongs to one conversation: how its questions are answered, presets for that, and the menu."""

import streamlit as st

from ui import share
from ui.conversation import Conversation, export
from ui.markdown import plain
from ui.page_runs import key_of, renew
from ui.session import ChatSession


def draw(chat: ChatSession) -> None:
    """The options of the open conversation."""
    options, this = chat.current.options, chat.current.id
    preset_key, system_key = key_of(f"preset-{this}"), key_of(f"system-{this}")

    def change(name: str) -> None:
        value = st.session_state[f"{name}-{this}"]
        if value != getattr(options, name):  # Streamlit may call this when a conversation is opened again
            setattr(options, name, value)
            chat.options_changed()

    def change_system() -> None:
        if system_key == key_of(f"system-{this}") and st.session_state[system_key] != options.system:
            options.system = st.session_state[system_key]
            chat.options_changed()

    def choose_preset() -> None:
        """Apply the chosen preset; a new name makes one of the system prompt that is there."""
        if preset_key != key_of(f"preset-{this}"):
            return
        name = " ".join((st.session_state[preset_key] or "").split())
        if name and name not in presets:
            chat.save_preset(name, options.system)
        system = presets.get(name, options.system if name else "")
        if system != options.system:
            options.system = system
            renew(f"system-{this}")
        st.session_state[f"chosen-{this}"] = name
        chat.options_changed()

    def delete_preset(name: str) -> None:
        chat.delete_preset(name)
        renew(f"preset-{this}")
        st.session_state[f"chosen-{this}"] = ""

    def toggle_sampling() -> None:
        custom = st.session_state[f"custom-{this}"]
        options.temperature, options.top_p = (0.7, 0.95) if custom else (None, None)
        chat.options_changed()

    presets = {preset.name: preset.system for preset in chat.storage.preferences.presets}
    with st.popover("Options", icon=":material/tune:", type="tertiary"):
        # The preset that is in use; one that was chosen stays so while its text is being changed.
        chosen = st.session_state.get(f"chosen-{this}") or next(
            (name for name, system in presets.items() if system == options.system), None
        )
        st.selectbox(
            "Preset",
            list(presets),
            index=list(presets).index(chosen) if chosen in presets else None,
            placeholder="Choose one, or type a name to save the prompt below",
            accept_new_options=True,
            key=preset_key,
            on_change=choose_preset,
        )
        st.text_area(
            "System prompt",
            options.system,
            key=system_key,
            max_chars=20_000,
            height=100,
            placeholder="How the model should answer in this conversation.",
            on_change=change_system,
        )
        if chosen in presets:
            with st.container(horizontal=True, gap="small"):
                if presets[chosen] != options.system:
                    st.button(
                        f"Update “{plain(chosen)}”",
                        on_click=chat.save_preset,
                        args=(chosen, options.system),
                    )
                st.button(
                    f"Delete “{plain(chosen)}”",
                    type="tertiary",
                    on_click=delete_preset,
                    args=(chosen,),
                )
        custom = st.toggle(
            "Custom sampling",
            options.temperature is not None,
            key=f"custom-{this}",
            on_change=toggle_sampling,
            help="If off, the model's default temperature and top p are used.",
        )
        if custom:
            st.slider(
                "Temperature",
                0.0,
                2.0,
                options.temperature or 0.0,
                0.05,
                key=f"temperature-{this}",
                on_change=change,
                args=("temperature",),
                help="0 always picks the most likely token; values above 1 become erratic.",
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
                help="Only the most likely tokens that together have this probability are considered.",
            )
        st.number_input(
            "Max response length (tokens)",
            16,
            32768,
            options.max_tokens,
            256,
            key=f"max_tokens-{this}",
            on_change=change,
            args=("max_tokens",),
            help="You can continue a response that was cut off.",
        )


def draw_menu(chat: ChatSession) -> None:
    """What can be done with the open conversation as a whole."""
    conversation, this = chat.current, chat.current.id

    def rename() -> None:
        chat.rename(this, st.session_state[f"title-{this}"])

    with st.popover("More", icon=":material/more_horiz:", type="tertiary"):
        st.text_input("Title", conversation.title, key=f"title-{this}", on_change=rename, max_chars=200)
        st.button(
            "Unpin" if conversation.pinned else "Pin",
            icon=":material/keep:",
            on_click=chat.pin,
            args=(this, not conversation.pinned),
            width="stretch",
            type="tertiary",
        )
        _exports(conversation)
        st.button(
            "Delete",
            icon=":material/delete:",
            on_click=chat.delete,
            args=(this, conversation.name),
            width="stretch",
            type="tertiary",
            key="delete-conversation",
        )


def _exports(conversation: Conversation) -> None:
    letters = "".join(letter if letter.isalnum() else "-" for letter in conversation.name)
    name = letters.strip("-")[:60] or "chat"
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
        "Share as HTML page",
        lambda: share.page(conversation),
        f"{name}.html",
        "text/html",
        on_click="ignore",
        icon=":material/share:",
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
