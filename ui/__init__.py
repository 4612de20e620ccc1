"""The chat app: a Streamlit front end of the router. Entry point: `__main__.py`, which serves `chat.py`."""
