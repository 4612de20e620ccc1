"""The suites: what a developer sends, in which mix and with which pauses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from gevent.pool import Pool

from loadtests.client import Client, Request, Sample
from loadtests.material import CANARIES, TOOLS, AgentRun, Conversation, Editing


@dataclass(frozen=True)
class Suite:
    """A mix of activities and the seconds a developer pauses between two of them."""

    what: str
    weights: dict[str, int]
    pause: tuple[float, float]
    # One request in so many is a canary: a fixed prompt whose answer is known from before the load.
    canary_every: int = 12


SUITES = {
    "completion": Suite("IDE autocomplete: fill-in-the-middle, 50-100 tokens", {"completion": 1}, (0.2, 0.8)),
    "chat": Suite("streaming chat of several turns about code", {"chat": 1}, (1.0, 5.0)),
    "agent": Suite("coding agent: long growing prompts with tools", {"agent": 1}, (0.5, 2.0)),
    "mixed": Suite("a team at work", {"completion": 6, "chat": 3, "agent": 1}, (0.5, 3.0)),
    "burst": Suite("everybody at once, beyond the queue", {"burst": 1}, (0.0, 0.0), canary_every=0),
    "soak": Suite("a team at work, for hours", {"completion": 6, "chat": 3, "agent": 1}, (0.5, 3.0)),
}


@dataclass
class LoadTest:
    """What the users of one run share: where to send, how, and the samples that came of it."""

    url: str
    key: str
    suite: str
    seed: int = 1
    think: float = 1.0  # pauses are multiplied by this; 0 sends without pause
    rate: float = 0.0  # arrivals per second over all users (open loop); 0 is closed loop
    aliases: tuple[str, ...] = ("coder", "general")
    suffix: bool = True  # whether the coder can fill in the middle
    timeout: float = 300.0
    users: int = 1
    # Services, by name and URL, whose memory is watched meanwhile.
    watched: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    on_sample: Callable[[Sample], None] | None = None
    serial: Iterator[int] = field(default_factory=itertools.count)
    in_flight: Any = field(default_factory=Pool)  # open loop: requests not yet answered

    def connect(self) -> Client:
        """A connection of one's own to the service."""
        return Client(self.url, self.key, timeout=self.timeout)

    def record(self, sample: Sample) -> None:
        """Keep a sample and tell whoever listens."""
        self.samples.append(sample)
        if self.on_sample:
            self.on_sample(sample)

    def model_for(self, kind: str) -> str:
        """The alias that requests of this kind go to: chat to the general model, the rest to the coder."""
        wanted = "general" if kind == "chat" else "coder"
        return wanted if wanted in self.aliases else self.aliases[0]


class Writer:
    """Makes the requests of one developer, the same ones for the same seed."""

    def __init__(self, test: LoadTest, number: int) -> None:
        """Be developer `number` of the test."""
        self._test = test
        self._rng = Random(f"{test.seed}/{test.suite}/{number}")  # noqa: S311 - repeatable, not secret
        self._name = f"loadtest-{number}"
        self._editing: Editing | None = None
        self._conversation: Conversation | None = None
        self._agent_run: AgentRun | None = None
        self._turns = {"chat": 0, "agent": 0}

    def next(self) -> Request:
        """The next request, of a kind drawn by the suite's weights."""
        suite = SUITES[self._test.suite]
        if suite.canary_every and self._rng.randrange(suite.canary_every) == 0:
            return self.canary(self._rng.choice(sorted(CANARIES)))
        kinds = list(suite.weights)
        (kind,) = self._rng.choices(kinds, [suite.weights[k] for k in kinds])
        request: Request = getattr(self, f"_{kind}")()
        return request

    def pause(self) -> float:
        """Seconds until the next request."""
        return self._rng.uniform(*SUITES[self._test.suite].pause) * self._test.think

    def answered(self, request: Request, sample: Sample) -> None:
        """Let the conversation go on with the answer."""
        if request.kind == "chat" and self._conversation and sample.ok:
            self._conversation.answered(sample.text)

    def canary(self, name: str) -> Request:
        """A fixed prompt at temperature 0, whose answer must not depend on the load."""
        body = {
            "messages": [{"role": "user", "content": CANARIES[name]}],
            "temperature": 0,
            "max_tokens": 48,
            "min_tokens": 16,
        }
        return self._chat_request("canary", body, self._test.model_for("completion"), canary=name)

    def plain(self, body: dict[str, Any]) -> Request:
        """A chat request with this body, measured like any other."""
        return self._chat_request("plain", dict(body), body["model"])

    def fill_in_the_middle(self) -> Request:
        """A short completion with a suffix, to see whether the coder takes one."""
        body = {
            "model": self._test.model_for("completion"),
            "prompt": "def add(a, b):\n    return ",
            "suffix": "\n",
        }
        return Request("probe", "/v1/completions", body | {"max_tokens": 2, "stream": True})

    def _completion(self) -> Request:
        if self._editing is None or self._rng.randrange(6) == 0:
            self._editing = Editing(self._rng)
        prefix, suffix = self._editing.next()
        length = self._rng.randint(50, 100)
        body = {
            "model": self._test.model_for("completion"),
            "prompt": prefix,
            "temperature": 0.2,
            "max_tokens": length,
            # Exactly so many tokens: the promise is about 50-100, and a model may want to stop after three.
            "min_tokens": length,
            "seed": self._rng.randrange(10**6),
            "user": self._name,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._test.suffix:
            body["suffix"] = suffix
        return Request("completion", "/v1/completions", body, min_tokens=length)

    def _chat(self) -> Request:
        if self._conversation is None or self._turns["chat"] >= 4:
            self._conversation, self._turns["chat"] = Conversation(self._rng), 0
        self._turns["chat"] += 1
        body = {
            "messages": list(self._conversation.messages),
            "temperature": 0.7,
            "max_tokens": self._rng.randint(50, 100),
            "min_tokens": 20,
            "seed": self._rng.randrange(10**6),
        }
        return self._chat_request("chat", body, self._test.model_for("chat"))

    def _agent(self) -> Request:
        if self._agent_run is None or self._turns["agent"] >= 5:
            self._agent_run, self._turns["agent"] = AgentRun(self._rng), 0
        elif self._turns["agent"]:
            self._agent_run.step()
        self._turns["agent"] += 1
        body = {
            "messages": list(self._agent_run.messages),
            "tools": TOOLS,
            "temperature": 0.2,
            "max_tokens": 64,
            "min_tokens": 16,
            "seed": self._rng.randrange(10**6),
        }
        return self._chat_request("agent", body, self._test.model_for("agent"))

    def _burst(self) -> Request:
        length = 16
        body = {
            "messages": Conversation(self._rng).messages,
            "max_tokens": length,
            "min_tokens": length,
        }
        return self._chat_request("burst", body, self._test.model_for("completion"))

    def _chat_request(self, kind: str, body: dict[str, Any], model: str, canary: str = "") -> Request:
        body |= {
            "model": model,
            "user": self._name,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return Request(kind, "/v1/chat/completions", body, body.get("min_tokens", 1), canary)
