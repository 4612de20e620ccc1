"""GET /usage: whose use each key sees, and that others are served meanwhile."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import httpx
import pytest

from tests.support.service import ASK, KEY, Service, chat

ANN, BOB = "aNn0" + KEY[4:], "b0B1" + KEY[4:]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("usage")
    (folder / "keys.yaml").write_text(f"ann: {ANN}\nbob: {BOB}\n")
    service = Service(folder, keys_file=folder / "keys.yaml")
    with service:
        yield service


def usage(service: Service, with_key: str = KEY, **query: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {with_key}"}
    return ASK.get(f"{service.url}/usage", params=query, headers=headers)


def clients(answer: httpx.Response) -> dict[str, int]:
    assert answer.status_code == 200, answer.text
    return {row["name"]: row["requests"] for row in answer.json()["client"]}


def test_each_key_sees_itself_and_the_services_key_all(service: Service) -> None:
    question = "What is the secret of the lighthouse?"
    for key in (ANN, ANN, BOB, KEY):
        headers = {"authorization": f"Bearer {key}", "user-agent": "Zed/1.0"}
        answer = service.post("/v1/chat/completions", chat(question, max_tokens=3), **headers)
        assert answer.headers["x-duoserve-key"] == {ANN: "ann", BOB: "bob", KEY: "master"}[key]
        service.record(answer)
    everything = usage(service)
    assert clients(everything) == {"ann": 2, "bob": 1, "master": 1}
    assert everything.json()["total"]["tools"] == {"zed": 4}
    assert everything.json()["total"]["completion_tokens"] == 12
    assert clients(usage(service, since="24h", key="bob")) == {"bob": 1}
    own = usage(service, ANN)
    assert clients(own) == {"ann": 2} and "bob" not in own.text and own.json()["total"]["requests"] == 2
    for secret in (question, KEY, ANN, BOB):
        assert secret not in everything.text

    others = usage(service, ANN, key="bob")
    assert others.status_code == 403 and "'ann'" in others.json()["error"]["message"]
    assert usage(service, "wrong" + KEY).status_code == 401


@pytest.mark.parametrize(
    ("query", "named"),
    [({"since": "soon"}, "since"), ({"utc_offset": "x"}, "utc_offset"), ({"key": "\n"}, "key")],
)
def test_a_bad_parameter_is_named(service: Service, query: dict[str, str], named: str) -> None:
    answer = usage(service, **query)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == named


def test_others_are_served_while_a_long_log_is_read(own_service: Callable[..., Service]) -> None:
    service = own_service().start()
    record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "client": "x" * 64, "status": 200}
    path = service.folder / "data" / "logs" / "requests.jsonl.2026-11-01"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{json.dumps(record, separators=(',', ':'))}\n" * 200_000)
    with ThreadPoolExecutor(1) as together:
        reading = together.submit(usage, service)
        pauses = []
        while not reading.done():
            pauses.append(ASK.get(f"{service.url}/health").elapsed.total_seconds())
        answer = reading.result()
    assert answer.status_code == 200, answer.text + service.log()
    assert answer.json()["total"]["requests"] == 200_000
    assert len(pauses) > 5 and median(pauses) < answer.elapsed.total_seconds() / 10
