"""The pages `chat.py`, `about.py` and `usage.py`, which Streamlit runs as scripts, and parts of `chat.py`."""
