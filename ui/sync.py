"""Encrypted copies of a browser's conversations on the server, for those who sign in with a personal key.

The browser (`frontend/sync.js`) knows all of its conversations and decides what to exchange; the routes here
encrypt, decrypt and store (`vault.py`). The browser cannot encrypt: it has no WebCrypto on plain HTTP. Every
write names the version that it replaces, so that no device overwrites what it has not seen.

- `GET /sync`: the versions by file name
- `GET /sync/NAME`: a conversation, or `{"id", "deleted"}`; 422 if it cannot be decrypted
- `POST /sync`: store one, which answers its file's name and version; 412 and the name if the file is not the
  version in `If-Match` (`If-None-Match: *`: exists)
"""

import json
import re

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ui import settings, signin
from ui.settings import AppSettings
from ui.vault import LIMIT, Conflict, Damaged, Full, Vault

_UNCACHED = {"cache-control": "no-store"}
_ID = re.compile(r"[0-9a-z]{1,40}")  # as in conversation.py
_FULL = (
    f"Your conversations take more than {LIMIT // 1_000_000} MB, the limit for one person on this server. "
    "Those that did not fit are only on this device; delete some to make room."
)


def vault(settings: AppSettings, cookie: str | None) -> Vault | None:
    """The vault of whoever looks at a page; None if the session has no personal key in memory."""
    return signin.sessions(settings.litellm_master_key.get_secret_value()).vault(cookie)


def why_not(settings: AppSettings, cookie: str | None) -> str:
    """Why conversations cannot be synced in this session, for people; empty if they can."""
    if settings.only_this_machine:
        return "Only where people sign in with a personal key. Here, nobody signs in."
    if signin.viewer(settings, cookie) in (signin.MASTER, "", None):
        return (
            "Only for a personal key; you signed in with the service's key, which is shared. Whoever runs "
            "the service makes one with ./run keys add."
        )
    mine = vault(settings, cookie)
    if mine is None:
        return "The app has restarted and does not have your key any more. Sign out and in again to sync."
    if not mine.writable:
        return "The server has no place for them: data/sync cannot be written to."
    return ""


async def _route(request: Request) -> Response:
    loaded, cookie = settings.load(), request.cookies.get(signin.COOKIE)
    problem, mine = why_not(loaded, cookie), vault(loaded, cookie)
    if problem or mine is None:
        return _refused(403, problem)
    try:
        if request.method == "POST":
            return await _store(request, mine)
        if name := request.path_params.get("name"):
            content = await run_in_threadpool(mine.read, name)
            return Response(content, media_type="application/json", headers=_UNCACHED)
        return JSONResponse(await run_in_threadpool(mine.etags), headers=_UNCACHED)
    except Conflict as conflict:
        return JSONResponse({"problem": "Another device was quicker.", "name": str(conflict)}, 412)
    except Damaged:
        return _refused(422, "A conversation on the server is damaged.")
    except FileNotFoundError:
        return _refused(404, "There is no such conversation.")
    except Full:
        return _refused(507, _FULL)
    except OSError as error:
        return _refused(507, f"The server cannot store conversations now ({error.strerror}).")


async def _store(request: Request, mine: Vault) -> Response:
    replaces = request.headers.get("if-match", "").strip('"') or None
    # Both headers also keep other sites out: browsers ask first before they send them across origins.
    if replaces is None and request.headers.get("if-none-match") != "*":
        return _refused(428, "Say which version to replace.")
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > LIMIT:
            return _refused(507, _FULL)
    try:
        conversation_id = str((await run_in_threadpool(json.loads, content))["id"])
    except (ValueError, TypeError, KeyError):
        conversation_id = ""
    if not _ID.fullmatch(conversation_id):
        return _refused(400, "This is not a conversation.")
    name, etag = await run_in_threadpool(mine.write, conversation_id, bytes(content), replaces)
    return JSONResponse({"name": name, "etag": etag})


def _refused(status: int, problem: str) -> Response:
    return JSONResponse({"problem": problem}, status)


routes = [Route("/sync", _route, methods=["GET", "POST"]), Route("/sync/{name}", _route)]
