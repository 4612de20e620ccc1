from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from router.errors import ApiError, engine_failed
from router.exchange import Exchange
from router.layers.choose_replica import ChooseReplica
from router.models import Model, Replica
from router.quarantine import Quarantine
from router.readiness import Readiness
from router.relay import ENGINE_ERROR
from router.replicas import Replicas

MODELS = {"coder": Model("coder", ("http://a", "http://b"), "model", 8, 8192)}
FIRST, SECOND = MODELS["coder"].replicas


def test_the_least_busy_engine_is_chosen_and_clients_are_spread_over_equals() -> None:
    replicas = Replicas(Readiness(MODELS))
    both = MODELS["coder"].replicas
    first = {client: replicas.best(both, client) for client in map(str, range(40))}
    assert {replica.number for replica in first.values()} == {1, 2}
    assert all(replicas.best(both, client) is replica for client, replica in first.items())
    replicas.running[FIRST] += 1
    assert {replicas.best(both, client) for client in first} == {SECOND}


class Router:
    """The layer before an engine that answers as `app` does, with `ready` engines."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, app: Any, *ready: Replica) -> None:
        async def accepts(_: str) -> bool:
            return True

        monkeypatch.setattr("router.replicas._accepts", accepts)
        self.readiness = Readiness(MODELS)
        for replica in ready:
            self.readiness.observe(replica, True, "serving")
        self.replicas = Replicas(self.readiness)
        self._layer = ChooseReplica(app, self.replicas, Quarantine(self.readiness))

    async def ask(self) -> Exchange:
        exchange = Exchange("/v1/completions", alias="coder", client="ann")

        async def nothing(*_: Any) -> Any:
            pass

        await self._layer({"type": "http", "duoserve": exchange}, nothing, nothing)
        return exchange


async def _fails(scope: Scope, _receive: Receive, _send: Send) -> None:
    raise engine_failed("coder")


async def _ends_with_an_error(scope: Scope, _receive: Receive, _send: Send) -> None:
    Exchange.of(scope).reason = "engine_failed"


@pytest.mark.parametrize("app", [_fails, _ends_with_an_error])
async def test_an_engine_that_fails_gets_no_more_until_it_is_healthy(
    monkeypatch: pytest.MonkeyPatch, app: Any
) -> None:
    router = Router(monkeypatch, app, FIRST, SECOND)
    seen = []

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(Exchange.of(scope).chosen)
        await app(scope, receive, send)

    router._layer._app = noted
    for _ in range(3):
        try:
            await router.ask()
        except ApiError as error:
            assert error.reason == "engine_failed"
    # The second is the last one, and keeps its requests: it may be theirs that fail.
    assert len(set(seen[:2])) == 2 and seen[1] == seen[2]
    assert sum(router.replicas.running.values()) == 0
    router.readiness.observe(seen[0], True, "serving")
    assert len(router.readiness.ready("coder")) == 2


async def test_a_refused_request_is_no_failure_of_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuses(scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ApiError(400, "no", reason="engine_refused")

    router = Router(monkeypatch, refuses, FIRST, SECOND)
    with pytest.raises(ApiError):
        await router.ask()
    assert router.readiness.ready("coder") == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("part", "found"),
    [
        (b'data: {"error": {"message": "EngineCore", "type": "InternalServerError", "code": 500}}\n\n', True),
        (b'data: {"id": 1}\n\ndata: {"error":{"message":"x","code":500}}\n\n', True),
        (b'event: error\ndata: {"type": "error"}\n\n', True),
        (rb'data: {"choices": [{"text": "data: {\"error\": {\"code\": 500}}"}]}' + b"\n\n", False),
    ],
)
def test_an_engines_error_inside_a_stream_is_told_from_text(part: bytes, found: bool) -> None:
    assert bool(ENGINE_ERROR.search(part)) == found
