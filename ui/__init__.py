"""The chat app: a Streamlit client of the router. Entry point: `__main__.py`, which serves `server.py`."""
