"""The layers, each an ASGI middleware that wraps those inside it. `router/app.py` puts them in order."""
