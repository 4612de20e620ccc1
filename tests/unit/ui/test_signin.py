import hashlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from ui import signin
from ui.signin import COOKIE, FROM_ALL, FROM_ONE_ADDRESS, SignedIn, SignInRequired, Throttle
from ui.vault import Vault

KEY = "the master key of this test, long enough"
HTML = {"accept": "text/html"}


async def other_key(key: str) -> str | None:
    return "anna.k" if key == "anna's key" else None


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("inside")


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("inside")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[TestClient]:
    signin.sessions.cache_clear()
    app = Starlette(
        routes=[
            Route("/{path:path}", page, methods=["GET", "POST"]),
            WebSocketRoute("/_stcore/stream", socket),
        ]
    )
    inside = SignInRequired(app, KEY, other_key, partial(Vault, root=tmp_path))
    with TestClient(inside, follow_redirects=False) as client:
        yield client


def test_nothing_is_reached_without_a_session(browser: TestClient) -> None:
    assert browser.get("/", headers=HTML).headers["location"] == "/sign-in"
    assert browser.get("/static/x.js").status_code == 401
    assert browser.post("/_stcore/upload_file").status_code == 401
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect("/_stcore/stream") as stream:
        stream.receive_text()
    assert browser.get("/_stcore/health").text == "inside"  # for whoever watches the service


@pytest.mark.parametrize("key", [KEY, "anna's key", f" {KEY}\n"])
def test_a_good_key_opens_everything(browser: TestClient, key: str) -> None:
    answer = browser.post("/sign-in", data={"key": key})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 303 and "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert KEY not in cookie
    assert browser.get("/").text == "inside"
    with browser.websocket_connect("/_stcore/stream") as stream:
        assert stream.receive_text() == "inside"


@pytest.mark.parametrize(("key", "name"), [(KEY, "master"), ("anna's key", "anna.k")])
def test_a_session_knows_whose_key_opened_it(browser: TestClient, key: str, name: str) -> None:
    browser.post("/sign-in", data={"key": key})
    cookie = browser.cookies[COOKIE]
    assert signin.sessions(KEY).name(cookie) == name
    assert bool(signin.sessions(KEY).vault(cookie)) == (name != "master")
    personal = hashlib.sha256(key.encode()).hexdigest() if name != "master" else ""
    assert signin.sessions(KEY).key(cookie) == personal
    signin.sessions(KEY).end(cookie)
    assert signin.sessions(KEY).name(cookie) is None and signin.sessions(KEY).vault(cookie) is None


def test_a_wrong_key_opens_nothing_and_soon_has_to_wait(browser: TestClient) -> None:
    for _ in range(FROM_ONE_ADDRESS.amount):
        assert browser.post("/sign-in", data={"key": "wrong"}).status_code == 401
    answer = browser.post("/sign-in", data={"key": KEY})
    assert (
        answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= FROM_ONE_ADDRESS.get_expiry()
    )
    assert browser.get("/", headers=HTML).status_code == 303


def test_a_form_on_another_site_cannot_sign_in(browser: TestClient) -> None:
    answer = browser.post("/sign-in", data={"key": KEY}, headers={"origin": "http://evil.test"})
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


def test_a_session_ends_on_demand_and_with_another_key(browser: TestClient) -> None:
    browser.post("/sign-in", data={"key": KEY})
    cookie = browser.cookies[COOKIE]
    assert signin.sessions(KEY).valid(cookie) and not SignedIn("another key").valid(cookie)
    signin.sessions(KEY).end(cookie)
    assert browser.get("/").status_code == 401


def test_all_sessions_of_a_key_end_when_it_is_refused_and_the_page_says_why(browser: TestClient) -> None:
    cookies = []
    for key in ("anna's key", "anna's key", KEY):
        browser.cookies.clear()
        browser.post("/sign-in", data={"key": key})
        cookies.append(browser.cookies[COOKIE])
    everyone = signin.sessions(KEY)
    everyone.refuse(everyone.key(cookies[0]))
    assert [everyone.name(cookie) for cookie in cookies] == [None, None, "master"]
    assert everyone.vault(cookies[1]) is None
    browser.cookies.clear()
    assert signin.KEY_ENDED not in browser.get("/sign-in").text
    ended = {"cookie": f"{COOKIE}={cookies[0]}"}
    assert browser.get("/", headers=ended).status_code == 401
    assert signin.KEY_ENDED in browser.get("/sign-in", headers=ended).text
    # The router accepts it again, as after a mistake in the file of keys.
    browser.post("/sign-in", data={"key": "anna's key"})
    assert everyone.name(browser.cookies[COOKIE]) == "anna.k"


@pytest.mark.parametrize("forged", ["", "x", "a.b.c", "a" * 4000])
def test_a_forged_cookie_opens_nothing(browser: TestClient, forged: str) -> None:
    assert browser.get("/", headers={"cookie": f"{COOKIE}={forged}"}).status_code == 401


def test_a_throttled_address_may_try_again_and_never_stopped_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now, window = time.time(), FROM_ONE_ADDRESS.get_expiry()
    monkeypatch.setattr("time.time", lambda: now)
    throttle = Throttle()
    for _ in range(FROM_ONE_ADDRESS.amount):
        throttle.failed("a")
    assert throttle.wait("a") == window and throttle.wait("b") == 0
    now += window
    assert throttle.wait("a") == 0


def test_many_addresses_together_are_throttled_too() -> None:
    throttle = Throttle()
    for number in range(FROM_ALL.amount):
        assert not throttle.wait(f"address {number}")
        throttle.failed(f"address {number}")
    assert throttle.wait("another address") > 0
