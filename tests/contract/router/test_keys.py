"""`./run keys`, with a router that runs meanwhile."""

import hashlib
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml

from tests.support import ROOT
from tests.support.service import ASK, KEY, Service, chat
from tests.support.waiting import wait_for

PLAIN = "aNn0" + KEY[4:]
DAY = timedelta(days=1)


def keys(
    service: Service, *arguments: str, file_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    """`./run keys` in the environment of the service; `file_bytes`: a file cannot become larger."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes or 0, file_bytes or 0))

    return subprocess.run(
        [sys.executable, "-m", "router.manage_keys", *arguments],
        cwd=ROOT,
        env=service.environment,
        capture_output=True,
        text=True,
        preexec_fn=limit if file_bytes is not None else None,
    )


def made(service: Service, *arguments: str) -> str:
    """The key that a command has made: its only output."""
    done = keys(service, *arguments)
    assert done.returncode == 0, done.stderr
    (key,) = done.stdout.splitlines()
    assert re.fullmatch("sk-[0-9a-f]{64}", key) and key not in done.stderr
    return key


def ask(service: Service, key: str) -> httpx.Response:
    return ASK.post(f"{service.url}/v1/chat/completions", json=chat(max_tokens=1), headers={"x-api-key": key})


def becomes(service: Service, key: str, status: int) -> httpx.Response:
    """The first answer with that status."""

    def answers() -> list[httpx.Response]:
        answer = ask(service, key)
        return [answer] if answer.status_code == status else []

    return wait_for(answers, f"the key is answered with {status}")[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_keys_come_and_go_while_the_router_runs(own_service: Callable[..., Service], file: Path) -> None:
    """A file that was written by hand goes on working, comments included."""
    by_hand = (
        f"# The team.\nhand: {PLAIN}  # by hand\nci:\n  key: {PLAIN[::-1]}\n  tokens_per_minute: 9\n# end\n"
    )
    file.write_text(by_hand)
    file.chmod(0o644)
    service = own_service(keys_file=file).start()
    assert ask(service, PLAIN).status_code == 200

    ann = made(service, "add", "ann", "--rpm", "2")
    assert file.read_text().startswith(by_hand) and file.stat().st_mode & 0o777 == 0o600
    assert ann not in file.read_text()
    becomes(service, ann, 200)
    refused = becomes(service, ann, 429)
    assert (
        1 <= int(refused.headers["retry-after"]) <= 60 and "2 requests" in refused.json()["error"]["message"]
    )

    # A new key, with the limits of the old one, whose requests count.
    renewed = made(service, "rotate", "ann")
    refused = becomes(service, ann, 401)
    assert "not valid" in refused.json()["error"]["message"]
    assert ask(service, renewed).headers["x-ratelimit-limit-requests"] == "2"

    listed = keys(service, "list")
    assert [line.split()[::4] for line in listed.stdout.splitlines()[1:]] == [
        ["hand", "plain"],
        ["ci", "plain"],
        ["ann", "hashed"],
    ]
    for secret in (PLAIN, PLAIN[::-1], renewed, yaml.safe_load(file.read_text())["ann"]["sha256"]):
        assert secret not in listed.stdout + listed.stderr
    assert "rotate" in listed.stderr

    hand = made(service, "rotate", "hand")
    assert PLAIN not in file.read_text().splitlines()[1] and "# by hand" in file.read_text()
    becomes(service, PLAIN, 401)
    assert ask(service, hand).status_code == 200

    assert keys(service, "revoke", "ann").returncode == keys(service, "revoke", "ci").returncode == 0
    becomes(service, renewed, 401)
    assert ask(service, hand).status_code == 200
    assert list(yaml.safe_load(file.read_text())) == ["hand"] and file.read_text().endswith("# end\n")
    for secret in (ann, renewed, hand, PLAIN):
        assert secret not in service.log()


def test_a_key_is_valid_until_the_end_of_its_last_day(
    own_service: Callable[..., Service], file: Path
) -> None:
    today = datetime.now(UTC).date()
    over, last = "0ld" + KEY[3:], "l4st" + KEY[4:]
    # Tomorrow, and not today: it may be midnight.
    file.write_text(
        f"over: {{key: {over}, expires: {today - DAY}}}\nlast: {{key: {last}, expires: {today + DAY}}}\n"
    )
    service = own_service(keys_file=file).start()
    assert ask(service, last).status_code == 200
    refused = ask(service, over)
    assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
    assert f"'over' expired after {today - DAY}" in refused.json()["error"]["message"]
    assert service.record(refused) | {"error": "expired_key", "key": "over"} == service.record(refused)
    assert "(expired)" in keys(service, "list").stdout

    again = keys(service, "rotate", "over")
    assert again.returncode == 1 and "--expires" in again.stderr and again.stdout == ""
    becomes(service, made(service, "rotate", "over", "--expires", "30d"), 200)
    left = yaml.safe_load(file.read_text())["over"]["expires"] - today
    assert left in (30 * DAY, 31 * DAY)
    made(service, "rotate", "over", "--expires", "never")
    assert "expires" not in yaml.safe_load(file.read_text())["over"]


def test_the_chat_app_asks_for_whoever_signed_in(own_service: Callable[..., Service], file: Path) -> None:
    """With the service's key and the hash of theirs: it counts for them, with their limits, while that is
    valid.
    """
    over = "0ld" + KEY[3:]
    file.write_text(f"over: {{key: {over}, expires: 2026-01-31}}\n")
    service = own_service(keys_file=file).start()
    ann = made(service, "add", "ann", "--rpm", "1")
    becomes(service, ann, 429)

    def asked(key: str) -> httpx.Response:
        for_key = {"x-duoserve-for-key": hashlib.sha256(key.encode()).hexdigest()}
        return service.post("/v1/chat/completions", chat(max_tokens=1), **for_key)

    limited = asked(ann)
    assert (limited.status_code, service.record(limited)["client"]) == (429, "ann")
    renewed = made(service, "rotate", "ann", "--rpm", "0")
    becomes(service, renewed, 200)
    counted = asked(renewed)
    record = service.record(counted)
    assert (counted.headers["x-duoserve-key"], record["client"], record["key"]) == ("ann", "ann", "ann")
    for key, words in ((ann, "revoked or replaced"), (over, "expired after")):
        refused = asked(key)
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (401, "x-duoserve-for-key"), refused.text
        assert words in error["message"]
    assert service.post("/v1/chat/completions", chat(max_tokens=1)).headers["x-duoserve-key"] == "master"


@pytest.fixture
def settings(tmp_path: Path, file: Path) -> Service:
    """The settings of a service that does not run."""
    return Service(tmp_path, keys_file=file)


def test_two_commands_at_once_lose_nothing(settings: Service, file: Path) -> None:
    names = [f"user{number}" for number in range(6)]
    with ThreadPoolExecutor() as together:
        made_keys = list(together.map(lambda name: made(settings, "add", name), names))
    assert len(set(made_keys)) == len(names)
    assert sorted(yaml.safe_load(file.read_text())) == names
    assert [path.name for path in file.parent.glob("*keys*")] == ["keys.yaml"]


def test_a_full_disk_leaves_the_file_as_it_was(settings: Service, file: Path) -> None:
    made(settings, "add", "ann")
    before = file.read_text()
    done = keys(settings, "add", "bob", file_bytes=20)
    assert done.returncode == 1 and done.stdout == ""
    assert "was not changed" in done.stderr and done.stderr.count("\n") == 1
    assert file.read_text() == before
    assert [path.name for path in file.parent.glob("*keys*")] == ["keys.yaml"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "ann"], "rotate"),
        (["add", "master"], "master"),
        (["add", "two words"], "letters"),
        (["rotate", "bob"], "list"),
        (["revoke", "bob"], "list"),
        (["add", "bob", "--expires", "2020-01-01"], "is over"),
        (["add", "bob", "--expires", "soon"], "30d"),
        (["add", "bob", "--rpm", "-1"], "0 for no limit"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    settings: Service, file: Path, arguments: list[str], told: str
) -> None:
    file.write_text(f"ann: {PLAIN}\n")
    done = keys(settings, *arguments)
    assert done.returncode in (1, 2) and told in done.stderr.splitlines()[-1] and done.stdout == ""
    assert file.read_text() == f"ann: {PLAIN}\n"


@pytest.mark.parametrize("content", ["ann: short\n", "ann: [\n", f"{{ann: {PLAIN}}}\n", "ann: {}\n"])
def test_a_file_that_cannot_be_edited_is_left_alone(settings: Service, file: Path, content: str) -> None:
    file.write_text(content)
    done = keys(settings, "add", "bob")
    assert done.returncode == 1 and "KEYS_FILE" in done.stderr and done.stderr.count("\n") == 1
    assert PLAIN not in done.stderr and file.read_text() == content


def test_without_a_file_the_setting_is_named(tmp_path: Path) -> None:
    done = keys(Service(tmp_path), "add", "ann")
    assert done.returncode == 1 and "KEYS_FILE is empty" in done.stderr
