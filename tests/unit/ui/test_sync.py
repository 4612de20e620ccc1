import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from ui import settings, signin, sync, vault
from ui.signin import COOKIE, SignInRequired
from ui.vault import Vault

KEY = "k" * 40
NEW = {"if-none-match": "*"}
DOOR = {"id": "c0ffee", "revision": "1", "title": "The hidden door", "messages": []}


async def other_key(key: str) -> str | None:
    return {"anna's key": "anna.k", "bob's key": "bob"}.get(key)


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    for name, value in {
        "LITELLM_MASTER_KEY": KEY,
        "BIND_ADDRESS": "0.0.0.0",
        "UI_PORT": "8501",
        "ROUTER_PORT": "4000",
        "ROUTER_URL": "http://127.0.0.1:4000",
        "CONTEXT_RATIO": "0.75",
        "DUOSERVE_HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    signin.sessions.cache_clear()
    inside = SignInRequired(
        Starlette(routes=sync.routes), KEY, other_key, partial(Vault, root=settings.load().vaults)
    )
    with TestClient(inside, follow_redirects=False) as client:
        yield client


@pytest.fixture
def anna(browser: TestClient) -> TestClient:
    browser.post("/sign-in", data={"key": "anna's key"})
    return browser


def test_a_conversation_is_stored_read_replaced_and_deleted(anna: TestClient, tmp_path: Path) -> None:
    assert anna.get("/sync").json() == {}
    stored = anna.post("/sync", json=DOOR, headers=NEW).json()
    name, etag = stored["name"], stored["etag"]
    assert anna.get("/sync").json() == {name: etag}
    assert anna.get(f"/sync/{name}").json() == DOOR
    gone = {"id": DOOR["id"], "deleted": "2026-11-28T12:00:00Z"}
    assert anna.post("/sync", json=gone, headers={"if-match": f'"{etag}"'}).json()["name"] == name
    assert anna.get(f"/sync/{name}").json() == gone and len(anna.get("/sync").json()) == 1
    # A device that has not seen the deletion does not undo it.
    assert anna.post("/sync", json=DOOR, headers={"if-match": f'"{etag}"'}).status_code == 412
    refused = anna.post("/sync", json=DOOR, headers=NEW)
    assert refused.status_code == 412 and refused.json()["name"] == name
    assert anna.get(f"/sync/{name}").json() == gone
    assert not any(b"hidden" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_each_key_has_its_conversations(anna: TestClient) -> None:
    name = anna.post("/sync", json=DOOR, headers=NEW).json()["name"]
    anna.post("/sign-in", data={"key": "bob's key"})
    assert anna.get("/sync").json() == {} and anna.get(f"/sync/{name}").status_code == 404


def test_a_damaged_file_is_refused(anna: TestClient, tmp_path: Path) -> None:
    name = anna.post("/sync", json=DOOR, headers=NEW).json()["name"]
    (file,) = (path for path in tmp_path.rglob(name))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert anna.get(f"/sync/{name}").status_code == 422


@pytest.mark.parametrize("headers", [{}, {"if-none-match": "x"}, {"if-match": ""}])
def test_a_write_says_what_it_replaces(anna: TestClient, headers: dict[str, str]) -> None:
    assert anna.post("/sync", json=DOOR, headers=headers).status_code == 428


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"id": "../x"}', b'{"id": ""}'])
def test_only_conversations_are_stored(anna: TestClient, body: bytes) -> None:
    assert anna.post("/sync", content=body, headers=NEW).status_code == 400
    assert anna.get("/sync").json() == {}


def test_a_limit_is_told_in_megabytes(anna: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (vault, sync):
        monkeypatch.setattr(module, "LIMIT", 1000)
    long = json.dumps(DOOR | {"title": "x" * 990}).encode()
    for content in (long, long + b" " * 2000):
        answer = anna.post("/sync", content=content, headers=NEW)
        assert answer.status_code == 507 and "50 MB" in answer.json()["problem"]


def test_a_disk_that_fails_is_told(anna: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Vault, "write", full)
    answer = anna.post("/sync", json=DOOR, headers=NEW)
    assert answer.status_code == 507 and "No space left" in answer.json()["problem"]


def test_nobody_syncs_without_a_session(browser: TestClient) -> None:
    assert browser.get("/sync").status_code == 401


def test_the_services_key_does_not_sync(browser: TestClient) -> None:
    browser.post("/sign-in", data={"key": KEY})
    answer = browser.get("/sync")
    assert answer.status_code == 403 and "shared" in answer.json()["problem"]


def test_why_it_cannot_be_turned_on(anna: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, cookie = settings.load(), anna.cookies[COOKIE]
    assert sync.why_not(loaded, cookie) == ""
    assert "signs in" in sync.why_not(loaded.model_copy(update={"bind_address": "127.0.0.1"}), cookie)
    monkeypatch.setattr(Vault, "writable", False)
    assert "data/sync" in sync.why_not(loaded, cookie)
    signin.sessions.cache_clear()  # as when the app has restarted
    assert "restarted" in sync.why_not(loaded, cookie)
    assert anna.get("/sync").status_code == 403


def test_a_session_that_has_ended_leaves_nothing_in_memory(anna: TestClient) -> None:
    cookie = anna.cookies[COOKIE]
    assert sync.vault(settings.load(), cookie)
    signin.sessions(KEY).end(cookie)
    assert sync.vault(settings.load(), cookie) is None
