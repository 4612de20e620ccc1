"""The single endpoint of the service: LiteLLM's proxy behind plain ASGI layers. Entry point: `__main__.py`.

`app.py` lists the layers in the order in which a request meets them. A layer (`layers/`) wraps what is inside
it; a step (`steps/`) is a plain function that looks at a request, changes it or refuses it. All that knows
LiteLLM is in `litellm/`.
"""
