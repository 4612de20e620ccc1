"""`python -m loadtests replay`: recorded sessions directly to an engine and through the router, turn by turn.

Directly, the engine gets what the client sent; through the router, what the router makes of it. The ways take
turns, with different texts, so that neither finds the other's in the cache.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from loadtests import gate
from loadtests.judge import stats
from loadtests.measure.connection import Connection
from loadtests.measure.sample import Sample, found_again
from loadtests.measure.users import LoadTest
from loadtests.report.tables import Table, aligned
from loadtests.settings import Target
from loadtests.workload.request import LoadRequest
from loadtests.workload.sessions import Session

WAYS = ("direct", "router")


@dataclass
class Replay:
    """A session as it was replayed, by way."""

    session: str
    client: str
    samples: dict[str, list[Sample]] = field(default_factory=lambda: {way: [] for way in WAYS})

    def found(self, way: str) -> list[float]:
        """For each later turn, the share of the turn before that was in the prefix cache."""
        return [hits / before for hits, before in found_again(self.samples[way])]

    def coldest(self) -> int:
        """The later turn of which the engine, asked directly, found the least."""
        later = [sample for sample in self.samples["direct"] if sample.turn]
        return min(zip(self.found("direct"), later, strict=True), key=lambda pair: pair[0])[1].turn

    def ttft(self, way: str, turn: int | None = None) -> list[float]:
        """Milliseconds to the first token of the later turns, or of one of them."""
        wanted = [s for s in self.samples[way] if s.turn and turn in (None, s.turn)]
        return [s.ttft for s in wanted if s.ttft is not None]

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        figures = {way: {"found_again": self.found(way), "ttft_ms": self.ttft(way)} for way in self.samples}
        return {"session": self.session, "client": self.client, **figures}


def run(options: argparse.Namespace) -> int:
    """Replay every session in both ways and print the table.

    Raises SettingError, ConnectionError.
    """
    target = Target.from_environment()
    test, notes = gate.prepare(target, "agent-replay", seed=options.seed, sessions=options.sessions)
    engine, urls = next(iter(target.engines.items()))
    replays = []
    for session in test.workload.sessions:
        print(session.name, file=sys.stderr, flush=True)
        replays.append(replay(test, session, urls[0], engine, options.rounds))
    if options.json:
        options.json.write_text(json.dumps([one.as_json() for one in replays]) + "\n")
    print(*notes, aligned(table(replays)), sep="\n\n")
    return 0


def replay(test: LoadTest, session: Session, url: str, engine: str, rounds: int) -> Replay:
    """`session` from its first turn to its last, `rounds` times.

    Raises ConnectionError when a turn has no complete answer.
    """
    done = Replay(session.name, session.client)
    ways = {"direct": (Connection(url, "", target="direct"), engine), "router": (test.connect(), None)}
    for number in range(rounds):
        turns = {
            way: list(
                session.bodies(
                    f"{test.workload.seed}/{way}/{number}",
                    session.scale(test.workload.window),
                    model or test.workload.model_for("agent"),
                )
            )
            for way, (_, model) in ways.items()
        }
        for turn in range(len(session.requests)):
            # Each way comes first as often as the other.
            for way in WAYS if (turn + number) % 2 else WAYS[::-1]:
                body = turns[way][turn].body
                if session.api == "chat":
                    body = body | {"stream_options": {"include_usage": True}}
                name = f"{session.name}/{way}/{number}"
                request = LoadRequest(
                    "turn", session.path, body, session=name, turn=turn, turns=len(turns[way]), any_text=True
                )
                sample = ways[way][0].measure(request)
                if not sample.ok:
                    raise ConnectionError(f"{name}, turn {turn}: {sample.outcome} {sample.detail}")
                done.samples[way].append(sample)
    for connection, _ in ways.values():
        connection.close()
    return done


def table(replays: Sequence[Replay]) -> Table:
    """One row per session. A turn whose answer had no text has no TTFT."""
    rows = []
    for one in replays:
        turn = one.coldest()
        first = {way: median(ttft) for way in WAYS if (ttft := one.ttft(way, turn))}
        rows.append(
            (
                one.session,
                one.client,
                *(f"{min(one.found(way)):.0%} / {median(one.found(way)):.0%}" for way in WAYS),
                *(f"{first[way]:.0f} ms" if way in first else "–" for way in WAYS),
                f"{first['router'] / first['direct']:.2f}" if len(first) == len(WAYS) else "–",
                str(stats.ratio(one.ttft("router"), one.ttft("direct"), 0.5)),
            )
        )
    head = (
        *("session", "client", "found again directly, least / median", "through the router"),
        *("TTFT of the coldest turn directly", "through the router", "ratio", "ratio of all later turns"),
    )
    return Table(head, rows)
