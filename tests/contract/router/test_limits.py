from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.redis import Redis
from tests.support.service import ASK, KEY, Service, chat
from tests.support.waiting import wait_for

ANN, BOB = "aNn0" + KEY[4:], "b0B1" + KEY[4:]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path).start()
    yield server
    server.kill()


def ask(service: Service, key: str = KEY) -> int:
    body = chat(max_tokens=20)
    return ASK.post(f"{service.url}/v1/chat/completions", json=body, headers={"x-api-key": key}).status_code


def test_each_key_has_its_own_limits(own_service: Callable[..., Service], tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(
        f"ann: {{key: {ANN}, requests_per_minute: 3}}\nbob: {{key: {BOB}, tokens_per_minute: 30}}\n"
    )
    service = own_service(keys_file=keys).start()
    # A request that is refused because its model is down uses up nothing.
    service.engines["general"].stop()
    wait_for(lambda: service.ready()["general"] == "down", "it is down")
    as_ann = {"authorization": f"Bearer {ANN}"}
    refused = [
        service.post("/v1/chat/completions", chat(model="general"), **as_ann).status_code for _ in range(3)
    ]
    assert refused == [503] * 3
    assert [ask(service, ANN) for _ in range(5)] == [200, 200, 200, 429, 429]
    answer = service.post("/v1/chat/completions", chat(), **{"authorization": f"Bearer {ANN}"})
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers["x-ratelimit-limit-requests"] == "3"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"

    # Twenty tokens and the prompt's are used by each: the second is the last.
    def bob() -> httpx.Response:
        headers = {"authorization": f"Bearer {BOB}"}
        answer = service.post("/v1/chat/completions", chat(max_tokens=20), **headers)
        service.record(answer)  # when it is in the log, its tokens have been counted
        return answer

    first = bob()
    assert first.headers["x-ratelimit-limit-tokens"] == "30"
    assert [first.status_code, bob().status_code, bob().status_code] == [200, 200, 429]
    assert ask(service, "unknown" + KEY) == 401
    service.record(service.post("/v1/chat/completions", chat()))  # the master key has none
    assert {record["client"] for record in service.records() if record["client"]} == {"ann", "bob", "master"}

    # Keys are changed while the router runs: bob's is taken away, carol comes, and so does a new master key.
    carol, master = "cAr0" + KEY[4:], "m4sT" + KEY[4:]
    keys.write_text(f"ann: {ANN}\ncarol: {carol}\nmaster: {master}\n")
    wait_for(lambda: ask(service, carol) == 200, "the new key counts")
    assert [ask(service, key) for key in (ANN, BOB, KEY, master)] == [200, 401, 401, 200]
    keys.write_text("carol: [not, a, key]\n")
    wait_for(lambda: "keeping the current keys: KEYS_FILE" in service.log(), "the log says why")
    assert carol not in service.log() and ask(service, carol) == 200


@pytest.mark.parametrize("when_down", ["open", "closed"])
def test_limits_in_redis_and_without_it(
    own_service: Callable[..., Service], redis: Redis, when_down: str
) -> None:
    service = own_service(requests_per_minute=4, redis_url=redis.url, limits_without_redis=when_down).start()
    assert [ask(service) for _ in range(5)] == [200, 200, 200, 200, 429]
    assert int(redis.ask("dbsize")) >= 1, "the count is not in redis, and so does not outlive the router"
    redis.kill()
    assert ask(service) == (200 if when_down == "open" else 503)
    assert f"rate limits fail {when_down}" in service.log()
