"""The one endpoint of the service: LiteLLM's proxy behind plain ASGI layers. Entry point: `__main__.py`.

`app.py` says in which order a request meets the layers; each layer is one module.
"""
