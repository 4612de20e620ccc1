"""Sign-in in front of every route and WebSocket, for when other machines can reach the app."""

import functools
import hashlib
import hmac
import html
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import quote, unquote

from itsdangerous import BadSignature, TimestampSigner
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ui.settings import AppSettings
from ui.vault import Vault

COOKIE = "duoserve_session"
PATH = "/sign-in"
MASTER = "master"  # the router's name for the service's key
MAX_AGE = 30 * 24 * 3600
KEY_ENDED = "Your key has expired, or was revoked or replaced. Sign in with a valid one."
# Wrong keys in a minute, from one address and from all of them, after which no more are checked.
FROM_ONE_ADDRESS = RateLimitItemPerMinute(5)
FROM_ALL = RateLimitItemPerMinute(50)
_HEALTH = "/_stcore/health"
_PAGE = (Path(__file__).parent / "frontend" / "sign_in.html").read_text()


class Throttle:
    """Slows down guessing: counts the wrong keys from each address, and from all addresses together."""

    def __init__(self) -> None:
        self._counts = FixedWindowRateLimiter(MemoryStorage())

    def wait(self, address: str) -> int:
        """Seconds that `address` has to wait before its next try; 0 if it may try now."""
        resets = [
            self._counts.get_window_stats(*limit).reset_time
            for limit in _limits(address)
            if not self._counts.test(*limit)
        ]
        return max(0, math.ceil(max(resets, default=0.0) - time.time()))

    def failed(self, address: str) -> None:
        """Count a wrong key."""
        for limit in _limits(address):
            self._counts.hit(*limit)


def _limits(address: str) -> tuple[tuple[RateLimitItemPerMinute, str], ...]:
    return (FROM_ONE_ADDRESS, address), (FROM_ALL, "all")


class SignedIn:
    """Who is signed in, by signed cookies, which name a key. A session ends with age, on demand, when the
    router refuses its key, or when the service's key changes.
    """

    def __init__(self, key: str) -> None:
        """`key` is the master key; the key of the signatures is derived from it."""
        self._signer = TimestampSigner(hashlib.sha256(b"duoserve chat session 3\0" + key.encode()).digest())
        self._ended: set[str] = set()
        self._refused: set[str] = set()  # keys, by their SHA-256
        self._vaults: dict[str, Vault] = {}  # in memory only, so that no disk has what decrypts them

    def begin(self, name: str, key: str = "", vault: Vault | None = None) -> str:
        """The cookie of a new session of whoever has the key of that name. `key` is the SHA-256 of a personal
        key, in hex, and `vault` its vault.
        """
        session = f"{secrets.token_urlsafe(24)}:{quote(name, safe='')}:{key}"
        self._refused.discard(key)
        if vault:
            self._vaults[session] = vault
        return self._signer.sign(session).decode()

    def name(self, cookie: str | None) -> str | None:
        """The name of the key with which the session of `cookie` began; None if it has ended."""
        session = self._session(cookie)
        return None if session is None else unquote(session.split(":")[1])

    def key(self, cookie: str | None) -> str:
        """The SHA-256 of the personal key with which the session of `cookie` began; empty if it has ended, or
        began with the service's key.
        """
        return _key_of(self._session(cookie) or "")

    def valid(self, cookie: str | None) -> bool:
        """Whether `cookie` belongs to a session that has not ended."""
        return self._session(cookie) is not None

    def vault(self, cookie: str | None) -> Vault | None:
        """The vault of the session of `cookie`, unless the app has restarted since it began."""
        return self._vaults.get(self._session(cookie) or "")

    def end(self, cookie: str) -> None:
        """End the session of `cookie` in every tab."""
        if session := self._session(cookie):
            self._ended.add(session)
            self._vaults.pop(session, None)

    def refuse(self, key: str) -> None:
        """End every session of the personal key with this SHA-256, which the router does not accept."""
        self._refused.add(key)
        for session in [each for each in list(self._vaults) if _key_of(each) == key]:
            self._vaults.pop(session, None)

    def refused(self, cookie: str | None) -> bool:
        """Whether the session of `cookie` ended because the router did not accept its key."""
        return _key_of(self._signed(cookie) or "") in self._refused

    def _session(self, cookie: str | None) -> str | None:
        session = self._signed(cookie)
        if session is None or session in self._ended or _key_of(session) in self._refused:
            return None
        return session

    def _signed(self, cookie: str | None) -> str | None:
        try:
            return self._signer.unsign(cookie or "", max_age=MAX_AGE).decode()
        except BadSignature:
            return None


def _key_of(session: str) -> str:
    return session.rpartition(":")[2]


@functools.cache
def sessions(key: str) -> SignedIn:
    """The sessions of this process for `key`, which the middleware and the pages share."""
    return SignedIn(key)


def viewer(settings: AppSettings, cookie: str | None) -> str | None:
    """The name of the key of whoever looks at a page; None if the session has ended. Without sign-in, it is
    the service's key for everyone.
    """
    if settings.only_this_machine:
        return MASTER
    return sessions(settings.litellm_master_key.get_secret_value()).name(cookie)


def personal_key(settings: AppSettings, cookie: str | None) -> str:
    """The SHA-256 of the personal key of whoever looks at a page, in hex; empty if they have none."""
    if settings.only_this_machine:
        return ""
    return sessions(settings.litellm_master_key.get_secret_value()).key(cookie)


class SignInRequired:
    """ASGI middleware that lets nobody pass without a session."""

    def __init__(
        self,
        app: ASGIApp,
        key: str,
        other_key: Callable[[str], Awaitable[str | None]],
        open_vault: Callable[[str], Vault],
    ) -> None:
        """`other_key` tells the name of a key other than the master key, or None if it is not valid."""
        self._app = app
        self._key = key
        self._sessions = sessions(key)
        self._other_key = other_key
        self._open_vault = open_vault
        self._throttle = Throttle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] == _HEALTH:
            await self._app(scope, receive, send)
        elif scope["path"] == PATH and scope["type"] == "http":
            await (await self._sign_in(Request(scope, receive)))(scope, receive, send)
        elif self._sessions.valid(_cookie(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "sign in first"})
        elif scope["method"] == "GET" and "text/html" in Request(scope).headers.get("accept", ""):
            await RedirectResponse(PATH, 303)(scope, receive, send)
        else:
            await PlainTextResponse("Sign in first.", 401)(scope, receive, send)

    async def _sign_in(self, request: Request) -> Response:
        if request.method != "POST":
            return _page(KEY_ENDED if self._sessions.refused(request.cookies.get(COOKIE)) else "")
        origin = request.headers.get("origin")
        if origin and origin.split("://")[-1] != request.headers.get("host"):
            return _page("This form was sent from another site.", 403)
        address = request.client.host if request.client else ""
        if wait := self._throttle.wait(address):
            return _page(
                f"Too many wrong keys. Try again in {wait} seconds.", 429, {"retry-after": str(wait)}
            )
        async with request.form(max_files=0, max_fields=4, max_part_size=4096) as form:
            given = str(form.get("key", "")).strip()
        name = await self._name(given)
        if name is None:
            self._throttle.failed(address)
            return _page(
                "This key is not valid. The team's key is LITELLM_MASTER_KEY in the service's .env.", 401
            )
        response = RedirectResponse("/", 303)
        if name in (MASTER, ""):
            cookie = self._sessions.begin(name)
        else:
            key = hashlib.sha256(given.encode()).hexdigest()
            cookie = self._sessions.begin(name, key, self._open_vault(given))
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=MAX_AGE,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response

    async def _name(self, given: str) -> str | None:
        # Digests have the same length, so that the comparison tells nothing about the key's length.
        wanted, digest = (hashlib.sha256(each.encode()).digest() for each in (self._key, given))
        if hmac.compare_digest(wanted, digest):
            return MASTER
        return await self._other_key(given) if given else None


def _cookie(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"cookie":
            found = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            return found.value if found else None
    return None


def _page(problem: str, status: int = 200, headers: dict[str, str] | None = None) -> HTMLResponse:
    alert = f'<p role="alert">{html.escape(problem)}</p>' if problem else ""
    return HTMLResponse(_PAGE.replace("<!-- problem -->", alert), status, headers)
