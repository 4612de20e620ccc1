import asyncio
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from router.background import background
from router.errors import ApiError, BadSettings
from router.exchange import Exchange
from router.keys import KeyRing, NamedKey, digest, read_keys
from router.settings import Settings
from router.steps.check_key import check_key

KEYS = {"master": "mQ7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa", "ann": "aQ7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa"}


def named(keys: dict[str, str]) -> dict[str, NamedKey]:
    limits = {"requests_per_minute": 0, "tokens_per_minute": 0}
    return {name: NamedKey.model_validate({"key": key, **limits}) for name, key in keys.items()}


def ask(path: str, address: str = "10.0.0.9", **headers: str) -> str:
    """The name of the key that the request carries."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    exchange = Exchange(path, request_headers=Headers(raw=pairs), address=address)
    ring = KeyRing(lambda: named(KEYS), None)
    check_key(exchange, ring=ring, metrics_open_to=[ip_network("10.0.0.0/24")])
    return exchange.key_name


@pytest.mark.parametrize(
    "header",
    [
        {"authorization": f"Bearer {KEYS['ann']}"},
        {"authorization": f"bearer  {KEYS['ann']} "},
        {"x_api_key": KEYS["ann"]},
        {"authorization": "Basic abc", "x_api_key": KEYS["ann"]},
    ],
)
def test_a_key_is_known_by_its_name(header: dict[str, str]) -> None:
    assert ask("/v1/models", **header) == "ann"


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": KEYS["ann"]},
        {"authorization": f"Bearer {KEYS['ann']}x"},
        {"x_api_key": "é"},
    ],
)
def test_anything_else_is_401(header: dict[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        ask("/v1/models", **header)
    assert caught.value.status == 401
    assert KEYS["ann"] not in caught.value.message


@pytest.mark.parametrize("header", ["authorization", "x_api_key"])
def test_the_services_key_may_ask_for_another_key(header: str) -> None:
    sent = {name: f"Bearer {key}" if header == "authorization" else key for name, key in KEYS.items()}
    for_ann = {"x_duoserve_for_key": digest(KEYS["ann"]).hex()}
    assert ask("/v1/models", **{header: sent["master"]}, **for_ann) == "ann"
    for_master = {"x_duoserve_for_key": digest(KEYS["master"]).hex()}
    assert ask("/v1/models", **{header: sent["ann"]}, **for_master) == "ann"


@pytest.mark.parametrize("other", [digest("revoked").hex(), KEYS["ann"], "ann", "é", " "])
def test_the_services_key_may_ask_for_no_key_that_is_not_valid(other: str) -> None:
    with pytest.raises(ApiError) as caught:
        ask("/v1/models", x_api_key=KEYS["master"], x_duoserve_for_key=other)
    assert (caught.value.status, caught.value.param) == (401, "x-duoserve-for-key")


def test_metrics_are_open_only_to_the_networks_that_are_named() -> None:
    ask("/metrics")
    with pytest.raises(ApiError):
        ask("/metrics", address="10.0.1.9")
    with pytest.raises(ApiError):
        ask("/v1/models")


def test_a_changed_file_counts_once_it_is_whole_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    reads: list[str] = []

    def read() -> dict[str, NamedKey]:
        text = file.read_text()
        reads.append(text)
        if text == "broken":
            raise BadSettings("not YAML")
        return named({text: KEYS["ann"]})

    file.write_text("ann")
    ring = KeyRing(read, file)
    ring.refresh()
    assert reads == ["ann"]
    file.write_text("bob-half-writ")
    ring.refresh()
    file.write_text("bob")
    ring.refresh()
    assert list(ring.keys) == ["ann"]
    ring.refresh()
    assert list(ring.keys) == ["bob"]
    file.write_text("broken")
    for _ in range(3):
        ring.refresh()
    assert list(ring.keys) == ["bob"] and reads == ["ann", "bob", "broken"]
    file.unlink()
    file.write_text("carol")
    ring.refresh()
    ring.refresh()
    assert list(ring.keys) == ["carol"]


BOB = "bQ7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa"


@pytest.mark.parametrize(
    "bad",
    [
        f"größe: {BOB}\n".encode("latin-1"),
        f"ann: {BOB}\n".encode("utf-16"),
        b"bob: 2026-13-45\n",
        b"bob: 2026-01-01\n",
        b"bob: 0x_\n",
        b"bob: {key: [1]}\n",
        b"bob: {1: 2}\n",
        b"? [a, b]\n: c\n",
        b"bob: &x [*x]\n",
        b"bob: " + b"[" * 5000,
        b"bob: \x00\n",
        b"bob: !!python/object:os.system x\n",
        b"just a text\n",
        b"- a\n",
        b"bob: 1e400\n",
        b"bob: !!int x\n",
        b"bob: !!binary x\n",
    ],
)
def test_no_file_ends_the_watch_and_a_later_one_is_read(
    tmp_path: Path, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(f"bob: {BOB}\n")
    master = named(KEYS)["master"].key
    settings = Settings.model_construct(
        litellm_master_key=master, keys_file=str(file), requests_per_minute=0, tokens_per_minute=0
    )
    ring = KeyRing(partial(read_keys, settings), file)
    file.write_bytes(bad)
    for _ in range(2):
        ring.refresh()
    assert list(ring.keys) == ["master", "bob"]
    assert "keeping the current keys: KEYS_FILE" in caplog.text and BOB not in caplog.text
    file.write_text(f"ann: {KEYS['ann']}\n")
    for _ in range(2):
        ring.refresh()
    assert ring.name_of(digest(BOB)) is None and ring.name_of(digest(KEYS["ann"])) == "ann"


async def test_a_background_task_that_fails_is_told_and_started_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.background._PAUSE_SECONDS", 0)
    starts, again = 0, asyncio.Event()

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise RuntimeError("broken")
        again.set()
        await asyncio.Event().wait()

    async with background(work):
        await asyncio.wait_for(again.wait(), 60)
    assert starts == 2 and "RuntimeError: broken" in caplog.text
