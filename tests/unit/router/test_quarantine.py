import pytest

from router.errors import ApiError, count_failed, engine_failed
from router.exchange import Exchange
from router.layers.choose_replica import ChooseReplica
from router.models import Model
from router.paths import CHAT, COUNT_TOKENS
from router.quarantine import SECONDS, Quarantine
from router.readiness import Readiness
from router.replicas import Replicas

MODELS = {"coder": Model("coder", ("http://a",), "model", 8, 8192)}
(ENGINE,) = MODELS["coder"].replicas


class Service:
    """A quarantine, its engine and its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readiness = Readiness(MODELS)
        self.quarantine = Quarantine(self.readiness, lambda: self.now)
        self.readiness.observe(ENGINE, True, "serving")

    def ask(self, text: str, **more: str) -> Exchange:
        exchange = Exchange(CHAT, alias="coder", body={"messages": [text], **more})
        self.quarantine.refuse(exchange)
        return exchange

    def die(self, *texts: str, seen_first: bool = False) -> None:
        """The engine dies while it answers these requests, and comes back."""
        asked = [self.ask(text) for text in texts]
        if seen_first:
            self.readiness.observe(ENGINE, False, "gone")
        for exchange in asked:
            self.quarantine.failed(exchange, ENGINE)
        self.now += 1
        self.readiness.observe(ENGINE, False, "gone")
        self.now += 60
        self.readiness.observe(ENGINE, True, "serving")

    def refuses(self, text: str, **more: str) -> bool:
        try:
            self.ask(text, **more)
        except ApiError as error:
            assert (error.status, error.reason) == (400, "quarantined")
            return True
        return False


@pytest.mark.parametrize(
    ("path", "error", "suspected"),
    [
        (CHAT, engine_failed("coder"), True),
        (CHAT, count_failed("coder"), False),
        (COUNT_TOKENS, engine_failed("coder"), False),
    ],
)
async def test_a_count_that_fails_makes_nobody_a_suspect(path: str, error: ApiError, suspected: bool) -> None:
    service = Service()

    async def fail(*_: object) -> None:
        raise error

    layer = ChooseReplica(fail, Replicas(service.readiness), service.quarantine)
    for _ in range(2):
        exchange = Exchange(path, alias="coder", body={"messages": ["long"]})
        service.quarantine.refuse(exchange)
        with pytest.raises(ApiError):
            await layer({"type": "http", "duoserve": exchange}, fail, fail)  # type: ignore[arg-type]
        service.readiness.observe(ENGINE, False, "busy with the count")
        service.now += 60
        service.readiness.observe(ENGINE, True, "serving")
    again = Exchange(path, alias="coder", body={"messages": ["long"], "model": "coder"})
    refused = False
    try:
        service.quarantine.refuse(again)
    except ApiError:
        refused = True
    assert refused == suspected


@pytest.mark.parametrize("seen_first", [False, True])
def test_a_request_in_two_deaths_is_refused_for_an_hour(seen_first: bool) -> None:
    service = Service()
    service.die("poison", "ann's", seen_first=seen_first)
    assert not service.refuses("poison")
    service.die("poison", "bob's", seen_first=seen_first)
    assert service.refuses("poison") and service.refuses("poison", user="another", model="gpt-4o")
    assert not service.refuses("ann's") and not service.refuses("bob's") and not service.refuses("poison?")
    service.now += SECONDS
    assert not service.refuses("poison")


def test_what_is_answered_meanwhile_is_innocent() -> None:
    service = Service()
    service.die("poison", "ann's")
    service.quarantine.served(service.ask("ann's"))
    service.die("poison", "ann's")
    assert service.refuses("poison") and not service.refuses("ann's")


@pytest.mark.parametrize("seen_first", [False, True])
def test_a_death_counts_once_however_often_the_request_was_running(seen_first: bool) -> None:
    service = Service()
    service.die("poison", "poison", "poison", seen_first=seen_first)
    assert not service.refuses("poison")


def test_a_failure_without_a_death_is_nobodys_fault() -> None:
    service = Service()
    for _ in range(3):
        service.quarantine.failed(service.ask("hi"), ENGINE)
        service.now += 60
    service.readiness.observe(ENGINE, False, "stopped by its owner")
    assert not service.refuses("hi")
