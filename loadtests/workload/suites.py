"""The suites: what developers send, in which mix and with which pauses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from loadtests.workload.material import CANARIES, TOOLS, AgentRun, Conversation, Editing
from loadtests.workload.request import LoadRequest
from loadtests.workload.sessions import FILE, Session, read_sessions


@dataclass(frozen=True)
class Suite:
    """A mix of activities, and the range of pauses between two requests of a developer, in seconds."""

    description: str
    weights: dict[str, int]
    pause: tuple[float, float]
    # One request in this many is a canary: a fixed prompt whose answer without load is known.
    canary_every: int = 12


TEAM = {"completion": 6, "chat": 3, "agent": 1}
SUITES = {
    "completion": Suite("IDE autocomplete: fill-in-the-middle, 50-100 tokens", {"completion": 1}, (0.2, 0.8)),
    "chat": Suite("streaming multi-turn chat about code", {"chat": 1}, (1.0, 5.0)),
    "agent": Suite("coding agent: long, growing prompts with tools", {"agent": 1}, (0.5, 2.0)),
    "agent-replay": Suite("recorded sessions of coding agents", {"replay": 1}, (0.0, 0.0), canary_every=0),
    "mixed": Suite("a team at work", TEAM, (0.5, 3.0)),
    "burst": Suite("everybody at once, more than the queue holds", {"burst": 1}, (0.0, 0.0), canary_every=0),
    "soak": Suite("a team at work, for hours", TEAM, (0.5, 3.0)),
}


@dataclass
class Workload:
    """A suite as it is run: which models are there, and which of its random variations is sent."""

    suite: str
    aliases: tuple[str, ...]  # the first for code, the last for chat
    seed: int = 1
    think: float = 1.0  # multiplies the pauses; 0 sends without pauses
    suffix: bool = True  # whether completions carry the text after the cursor
    window: int = 0  # tokens of the first model's context; replayed sessions are scaled to it
    sessions: Sequence[Session] = field(default_factory=lambda: read_sessions(FILE))  # what is replayed
    any_text: bool = False  # whether the text of answers is not checked

    def model_for(self, kind: str) -> str:
        """The alias for requests of this kind: chat goes to the last model, the rest to the first."""
        return self.aliases[-1 if kind == "chat" else 0]


class RequestGenerator:
    """Generates the requests of developer `number`: the same ones for the same seed."""

    def __init__(self, workload: Workload, number: int) -> None:
        self._workload = workload
        self._suite = SUITES[workload.suite]
        self._rng = Random(f"{workload.seed}/{workload.suite}/{number}")  # noqa: S311 - repeatable, not secret
        self._user = f"loadtest-{number}"
        self._editing: Editing | None = None
        self._conversation: Conversation | None = None
        self._agent_run: AgentRun | None = None
        self._turns = {"chat": 0, "agent": 0}
        self._replayed = self._replay(number)
        self._think: float | None = None  # the recorded pause after the latest request
        self._activities: dict[str, Callable[[], LoadRequest]] = {
            "completion": self._completion,
            "chat": self._chat,
            "agent": self._agent,
            "burst": self._burst,
            "replay": lambda: next(self._replayed),
        }

    def next(self) -> LoadRequest:
        """The next request, of a kind drawn by the suite's weights."""
        if self._suite.canary_every and self._rng.randrange(self._suite.canary_every) == 0:
            return self.canary(self._rng.choice(sorted(CANARIES)))
        (kind,) = self._rng.choices(list(self._suite.weights), list(self._suite.weights.values()))
        return self._activities[kind]()

    def pause(self) -> float:
        """Seconds until the next request."""
        recorded = self._think
        pause = self._rng.uniform(*self._suite.pause) if recorded is None else recorded
        return pause * self._workload.think

    def answered(self, request: LoadRequest, text: str) -> None:
        """Continue the conversation with the answer to `request`."""
        if request.kind == "chat" and self._conversation:
            self._conversation.answered(text)

    def canary(self, name: str) -> LoadRequest:
        """A fixed prompt at temperature 0, whose answer should not depend on the load."""
        body = {
            "messages": [{"role": "user", "content": CANARIES[name]}],
            "temperature": 0,
            "max_tokens": 48,
            "min_tokens": 16,
        }
        return self._chat_request("canary", body, self._workload.model_for("completion"), canary=name)

    def greeting(self, alias: str) -> LoadRequest:
        """A short chat request to warm up a model."""
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        return self._chat_request("greeting", body, alias)

    def fill_in_the_middle(self) -> LoadRequest:
        """A short completion with a suffix, to find out whether the model takes one."""
        body = {
            "model": self._workload.model_for("completion"),
            "prompt": "def add(a, b):\n    return ",
            "suffix": "\n",
            "max_tokens": 2,
            "stream": True,
        }
        return LoadRequest("probe", "/v1/completions", body)

    def _completion(self) -> LoadRequest:
        if self._editing is None or self._rng.randrange(6) == 0:
            self._editing = Editing(self._rng)
        prefix, suffix = self._editing.next()
        length = self._rng.randint(50, 100)
        body = {
            "model": self._workload.model_for("completion"),
            "prompt": prefix,
            "temperature": 0.2,
            "max_tokens": length,
            # Exactly this many tokens: left alone, a model may stop after three, and be fast for that.
            "min_tokens": length,
            "seed": self._rng.randrange(10**6),
            "user": self._user,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._workload.suffix:
            body["suffix"] = suffix
        any_text = self._workload.any_text
        return LoadRequest("completion", "/v1/completions", body, min_tokens=length, any_text=any_text)

    def _chat(self) -> LoadRequest:
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
        return self._chat_request("chat", body, self._workload.model_for("chat"))

    def _agent(self) -> LoadRequest:
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
        return self._chat_request("agent", body, self._workload.model_for("agent"))

    def _replay(self, number: int) -> Iterator[LoadRequest]:
        """Sessions one after the other; each developer begins with another one."""
        recorded, load = self._workload.sessions, self._workload
        for run in itertools.count(number):
            session = recorded[run % len(recorded)]
            seed = f"{load.seed}/{number}/{run}"
            requests = list(session.bodies(seed, session.scale(load.window), load.model_for("agent")))
            for turn, request in enumerate(requests):
                following = requests[turn + 1] if turn + 1 < len(requests) else requests[0]
                self._think = following.think
                body = request.body
                if session.api == "chat":
                    body = body | {"stream_options": {"include_usage": True}}
                yield LoadRequest(
                    "turn" if turn else "first turn",
                    session.path,
                    body,
                    any_text=True,  # to made-up words, a model may well say nothing
                    session=f"{session.name}/{number}/{run}",
                    turn=turn,
                    turns=len(requests),
                )

    def _burst(self) -> LoadRequest:
        body = {"messages": Conversation(self._rng).messages, "max_tokens": 16, "min_tokens": 16}
        return self._chat_request("burst", body, self._workload.model_for("completion"))

    def _chat_request(self, kind: str, body: dict[str, Any], model: str, canary: str = "") -> LoadRequest:
        body |= {
            "model": model,
            "user": self._user,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return LoadRequest(
            kind,
            "/v1/chat/completions",
            body,
            body.get("min_tokens", 1),
            canary,
            any_text=self._workload.any_text,
        )
