"""What a request costs the router grows with its length, and no faster."""

import contextlib
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from router.chat_families import ChatFamily
from router.context import cuts
from router.errors import ApiError
from router.exchange import Exchange
from router.paths import CHAT
from router.prefix import read_rules
from router.refusals import engine_refused
from router.steps.keep_prefix import KeepPrefix, ToolOrder
from router.steps.resolve_model import find_name
from tests.support import ROOT

Json = dict[str, Any]
RULES = read_rules(ROOT / "config" / "prefix.yaml")
LENGTH, TIMES = 300, 10
ANSWER = {"role": "assistant", "content": "Fine."}


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def system(content: str) -> Json:
    return {"role": "system", "content": content}


def cut(text: str) -> None:
    cuts([user(text), ANSWER, user("And?"), ANSWER, user("So?")], 1e9)


def keep(messages: list[Json]) -> None:
    strict = ChatFamily("strict", ("x",), inline_system=False)
    KeepPrefix({"coder": strict}, RULES)(Exchange(CHAT, alias="coder", body={"messages": messages}))


def refuse(message: str) -> None:
    engine_refused(400, orjson.dumps({"message": message}), "coder", ["messages"])


# What is done with a text of a length, or with so many messages.
COSTS: dict[str, Callable[[int], Callable[[], None]]] = {
    "space before a reminder that is none": lambda n: lambda: cut("a" + " " * 10 * n + "b"),
    "reminders that do not end": lambda n: lambda: cut("<system-reminder>a" * n),
    "reminders": lambda n: lambda: cut("a <system-reminder>b</system-reminder> " * n),
    "system turns after another": lambda n: lambda: keep([user("a"), *[system("b" * 999)] * n]),
    "system turns after parts": lambda n: lambda: keep([user([]), *[system("b")] * n, ANSWER]),
    "a line of the system prompt": lambda n: lambda: keep([system("Today is" + " " * n), user("a")]),
    "an engine's long sentence": lambda n: lambda: refuse("a" * 10 * n),
    "an engine's quotation": lambda n: lambda: refuse(": {'" * 3 * n),
}


def seconds(work: Callable[[], None]) -> float:
    """The least of several, of this thread's time, which what else the machine does hardly lengthens."""
    least = float("inf")
    for _ in range(5):
        began = time.thread_time()
        work()
        least = min(least, time.thread_time() - began)
    return least


@pytest.mark.parametrize("what", COSTS)
def test_ten_times_as_long_takes_ten_times_as_much(what: str) -> None:
    """The square of it would be a hundred times."""
    make = COSTS[what]
    assert seconds(make(TIMES * LENGTH)) < 4 * TIMES * seconds(make(LENGTH))


def peak(work: Callable[[], object]) -> int:
    """Bytes of memory taken at the same time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_model_name_of_a_megabyte_is_not_compared() -> None:
    def find() -> None:
        with contextlib.suppress(ApiError):
            find_name("m" * 1_000_000, {"coder": "coder", "general": "general"})

    assert peak(find) < 5_000_000


def test_what_is_remembered_of_tools_is_not_their_names_nor_more_than_some() -> None:
    def work(names: list[str]) -> None:
        order = ToolOrder()
        for client in range(8):
            order.sorted((str(client), "coder"), [{"name": f"{client} {name}"} for name in names])
        held = tracemalloc.get_traced_memory()[0]
        assert held < 2_000_000

    peak(lambda: work([str(number) for number in range(3000)]))
    peak(lambda: work(["x" * 10_000 + str(number) for number in range(100)]))
