"""The web application: Streamlit's own, behind sign-in when other machines can reach it."""

from functools import partial
from pathlib import Path
from urllib.parse import unquote

import httpx
import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui import settings, streaming, sync
from ui.signin import SignInRequired
from ui.vault import Vault

_HEADERS = {
    # A second line of defence: even a message that fools the Markdown renderer cannot load anything from
    # other hosts, or send anything there. Streamlit's charts compile their expressions, hence unsafe-eval.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-eval' 'unsafe-inline' blob: data:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class SecurityHeaders:
    """ASGI middleware that adds `_HEADERS` to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)


async def _name_of(key: str) -> str | None:
    """The router's name for `key`, which may have more keys than the master key; None if it refuses it."""
    try:
        async with httpx.AsyncClient(timeout=5.0) as http:
            response = await http.get(
                f"{_settings.router_url}/v1/models", headers={"Authorization": f"Bearer {key}"}
            )
    except (httpx.HTTPError, ValueError):
        return None
    return unquote(response.headers.get("x-duoserve-key", "")) if response.status_code == 200 else None


def _failed(error: Exception) -> bool:
    """What people see when the app fails: Streamlit has written the traceback to the log."""
    st.error("Something went wrong in the chat app. Your conversations are safe; reload the page.")
    return True


_settings = settings.load()
_key = _settings.litellm_master_key.get_secret_value()
_middleware = [Middleware(SecurityHeaders)]
if not _settings.only_this_machine:
    _open_vault = partial(Vault, root=_settings.vaults)
    _middleware.append(Middleware(SignInRequired, key=_key, other_key=_name_of, open_vault=_open_vault))
app = st.App(
    Path(__file__).with_name("app.py"),
    routes=[*streaming.routes, *sync.routes],
    middleware=_middleware,
    on_script_error=_failed,
)
