"""The page: draws a conversation and streams the answers into it."""

import streamlit as st
from openai import OpenAIError

from ui import settings
from ui.client import Message, Router

st.set_page_config(page_title="Duoserve", page_icon=":material/forum:")


@st.cache_resource
def _router() -> Router:
    return Router(settings.load())


with st.sidebar:
    model = st.selectbox("Model", ["coder", "general"])
    if st.button("New conversation"):
        st.session_state.pop("messages", None)

messages: list[Message] = st.session_state.setdefault("messages", [])
for message in messages:
    st.chat_message(message["role"]).markdown(message["content"])

if question := st.chat_input("Ask something"):
    messages.append({"role": "user", "content": question})
    st.chat_message("user").markdown(question)
    with st.chat_message("assistant"):
        try:
            answer = st.write_stream(_router().answer(model, messages))
        except OpenAIError as failure:
            st.error(f"No answer: {failure}")
        else:
            messages.append({"role": "assistant", "content": str(answer)})
