"""The pages, `chat.py` and `about.py`, which Streamlit runs as scripts, and the parts of the chat page."""
