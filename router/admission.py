"""Who may use an engine now, who waits, and who is turned away.

Each engine decodes as many requests together as it has slots; more would slow down everyone's tokens. The
rest wait in one bounded room. `Admission` is the bookkeeping, without clocks or tasks of its own; `Admit`
is the layer.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError
from router.exchange import Exchange
from router.readiness import Readiness, not_ready

# Autocompletions overtake a chat until it has waited so many seconds; from then on they take turns. What
# they gain in waiting chats lose, several times over where chats are fewer. Simulated, 16 busy developers
# on 8 slots: chats wait 3.1 s (p95 4.8), autocompletions 2.6 s (4.4); with four autocompletions to every
# chat it was 5.5 s (9.9) and 1.5 s (3.6).
CHAT_PATIENCE = 3.0
# The drain rate is taken over so many of the latest releases.
_RELEASES = 64


class QueueFull(Exception):
    """The waiting room is full."""


@dataclass(eq=False)
class Ticket:
    """One request's place: waiting for a slot of `alias`, running in it, or gone."""

    alias: str
    client: str
    urgent: bool
    granted: Callable[[], None]
    entered: float  # on the clock of the admission
    state: Literal["waiting", "running", "gone"] = "waiting"
    # How many were waiting for the same engine when this one came; 0 when it got a slot at once.
    position: int = 0


class _Line:
    """Those who wait for one engine in one class: first come first served within a client, clients in
    turn.
    """

    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[Ticket]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def add(self, ticket: Ticket) -> None:
        self._clients.setdefault(ticket.client, deque()).append(ticket)

    def remove(self, ticket: Ticket) -> None:
        tickets = self._clients[ticket.client]
        tickets.remove(ticket)
        if not tickets:
            del self._clients[ticket.client]

    @property
    def first(self) -> Ticket:
        """Whose turn it is. The line must not be empty."""
        return next(iter(self._clients.values()))[0]

    def pop(self) -> Ticket:
        client, tickets = self._clients.popitem(last=False)
        ticket = tickets.popleft()
        if tickets:
            self._clients[client] = tickets  # to the end: every other client comes first
        return ticket


@dataclass
class _Engine:
    slots: int
    running: int = 0
    urgent: _Line = field(default_factory=_Line)
    normal: _Line = field(default_factory=_Line)
    urgent_last: bool = False  # whether the latest to leave the lines was urgent

    def line(self, ticket: Ticket) -> _Line:
        return self.urgent if ticket.urgent else self.normal

    def pop(self, now: float) -> Ticket | None:
        if not self.urgent and not self.normal:
            return None
        owed = self.urgent_last and bool(self.normal) and now - self.normal.first.entered > CHAT_PATIENCE
        self.urgent_last = bool(self.urgent) and not owed
        return (self.urgent if self.urgent_last else self.normal).pop()


class Admission:
    """Slots of every engine and one waiting room of `queue_max` places over all of them."""

    def __init__(
        self, slots: Mapping[str, int], queue_max: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engines = {alias: _Engine(count) for alias, count in slots.items()}
        self._queue_max = queue_max
        self._clock = clock
        self._released: deque[float] = deque(maxlen=_RELEASES)

    def running(self, alias: str) -> int:
        """Requests in a slot of `alias`."""
        return self._engines[alias].running

    def slots(self, alias: str) -> int:
        """Slots of `alias`."""
        return self._engines[alias].slots

    def waiting(self, alias: str) -> int:
        """Requests that wait for a slot of `alias`."""
        engine = self._engines[alias]
        return len(engine.urgent) + len(engine.normal)

    def all_running(self) -> int:
        """Requests in a slot of any engine."""
        return sum(engine.running for engine in self._engines.values())

    def all_waiting(self) -> int:
        """Requests in the waiting room."""
        return sum(map(self.waiting, self._engines))

    def enter(self, alias: str, client: str, urgent: bool, granted: Callable[[], None]) -> Ticket:
        """A ticket that runs already when a slot is free, and waits otherwise; `granted` is called when it
        runs.

        Raises:
            QueueFull: every slot is taken and the waiting room is full.
        """
        engine = self._engines[alias]
        ticket = Ticket(alias, client, urgent, granted, self._clock())
        if engine.running < engine.slots:
            self._run(ticket)
            return ticket
        if self.all_waiting() >= self._queue_max:
            raise QueueFull
        ticket.position = self.waiting(alias) + 1
        engine.line(ticket).add(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give back the ticket's place, whichever it is. Leaving again changes nothing."""
        engine = self._engines[ticket.alias]
        if ticket.state == "waiting":
            engine.line(ticket).remove(ticket)
        elif ticket.state == "running":
            engine.running -= 1
            self._released.append(self._clock())
        ticket.state = "gone"
        self._fill(engine)

    def resize(self, alias: str, slots: int) -> None:
        """From now on `alias` has so many slots. What runs stays; with fewer slots, the next wait for it."""
        engine = self._engines[alias]
        engine.slots = slots
        self._fill(engine)

    def drain_seconds(self) -> float:
        """How long the waiting room takes to empty at the rate of the latest releases; 0 when unknown."""
        if len(self._released) < 2:
            return 0.0
        span = self._clock() - self._released[0]
        return self.all_waiting() * span / len(self._released)

    def _fill(self, engine: _Engine) -> None:
        while engine.running < engine.slots and (following := engine.pop(self._clock())):
            self._run(following)

    def _run(self, ticket: Ticket) -> None:
        ticket.state = "running"
        self._engines[ticket.alias].running += 1
        ticket.granted()


class Admit:
    """Holds a slot while the inner app answers; 429 when the room is full or the wait too long, and 503 to
    all who wait as soon as their model is down.
    """

    def __init__(self, app: ASGIApp, admission: Admission, readiness: Readiness, max_wait: float) -> None:
        self._app = app
        self._admission = admission
        self._readiness = readiness
        self._max_wait = max_wait

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets the queue headers of the exchange. Raises ApiError 429 or 503."""
        exchange = Exchange.of(scope)
        if exchange.path == "/v1/messages/count_tokens":  # takes milliseconds and no slot
            await self._app(scope, receive, send)
            return
        entered = time.monotonic()
        slot = asyncio.Event()
        try:
            ticket = self._admission.enter(exchange.alias, exchange.client, exchange.urgent, slot.set)
        except QueueFull:
            raise self._turned_away("The waiting room is full", "queue_full") from None
        try:
            if not slot.is_set():
                await self._wait(exchange.alias, slot)
            exchange.queue_wait = time.monotonic() - entered
            exchange.queue_position = ticket.position
            exchange.in_flight = self._admission.all_running()
            exchange.headers["x-duoserve-queue-wait-ms"] = f"{exchange.queue_wait * 1000:.0f}"
            exchange.headers["x-duoserve-queue-position"] = str(ticket.position)
            exchange.headers["x-duoserve-in-flight"] = str(exchange.in_flight)
            await self._app(scope, receive, send)
        finally:
            self._admission.leave(ticket)

    async def _wait(self, alias: str, slot: asyncio.Event) -> None:
        granted = asyncio.ensure_future(slot.wait())
        lost = asyncio.ensure_future(self._readiness.lost(alias))
        try:
            await asyncio.wait((granted, lost), timeout=self._max_wait, return_when=asyncio.FIRST_COMPLETED)
        finally:
            granted.cancel()
            lost.cancel()
        # An engine that hangs gives no slot back: who waits for it must not have to wait for that.
        status = self._readiness.status[alias]
        if status.state != "ready":
            raise not_ready(alias, status)
        if not slot.is_set():
            said = f"No slot became free within {self._max_wait:g} s (MAX_WAIT)"
            raise self._turned_away(said, "queue_timeout")

    def _turned_away(self, said: str, reason: str) -> ApiError:
        seconds = math.ceil(min(max(self._admission.drain_seconds(), 1.0), max(self._max_wait, 1.0)))
        return ApiError(
            429,
            f"{said}: every slot is busy and {self._admission.all_waiting()} requests wait. "
            f"Try again in {seconds} s.",
            reason=reason,
            kind="rate_limit_error",
            code=reason,
            headers={"retry-after": str(seconds)},
        )
