"""Which requests run now, which wait, and which are refused.

Each engine decodes as many answers at once as it has slots; more would slow down everyone's tokens. A request
takes a slot for each of its answers, and the rest wait in one bounded queue. Requests that index, for which
nobody waits at a keyboard, have a queue to themselves, so that they take no place in the other. Requests that
go last get slots for which nobody else waits, and never cost anybody else a place. This is the bookkeeping,
without tasks; the layer is in `layers/admit.py`.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

# Autocompletions overtake a chat until it has waited this many seconds; then they take turns with it. The
# time that autocompletions gain is lost by chats, several times over where chats are fewer. Simulated with 16
# busy developers on 8 slots: chats wait 3.1 s (p95 4.8), autocompletions 2.6 s (4.4); with four
# autocompletions for each chat's turn it would be 5.5 s (9.9) and 1.5 s (3.6).
CHAT_PATIENCE = 3.0
# The drain rate is measured over this many of the latest releases.
_RELEASES = 64


class QueueFull(Exception):
    """No slot is free and the queue is full."""


@dataclass(eq=False)
class Ticket:
    """One request's place: waiting for `sequences` slots of `alias`, running in them, or gone."""

    alias: str
    client: str
    group: str
    urgent: bool
    last: bool
    granted: Callable[[], None]
    entered: float  # on the clock of `Admission`
    sequences: int = 1
    state: Literal["waiting", "running", "gone"] = "waiting"
    # Its place in the queue for `alias` when it came, from 1; 0 if it got a slot at once.
    position: int = 0


class _Turns:
    """Tickets of one group: first come, first served within a client; clients take turns."""

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
        """Whose turn it is. The queue must not be empty."""
        return next(iter(self._clients.values()))[0]

    def pop(self) -> Ticket:
        client, tickets = self._clients.popitem(last=False)
        ticket = tickets.popleft()
        if tickets:
            self._clients[client] = tickets  # at the end: every other client comes first
        return ticket


class _FairQueue:
    """Tickets that wait for one model: groups take turns, and within a group its clients do."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, _Turns] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def add(self, ticket: Ticket) -> None:
        self._groups.setdefault(ticket.group, _Turns()).add(ticket)

    def remove(self, ticket: Ticket) -> None:
        self._groups[ticket.group].remove(ticket)
        if not self._groups[ticket.group]:
            del self._groups[ticket.group]

    @property
    def first(self) -> Ticket:
        """Whose turn it is. The queue must not be empty."""
        return next(iter(self._groups.values())).first

    def pop(self) -> Ticket:
        group, turns = self._groups.popitem(last=False)
        ticket = turns.pop()
        if turns:
            self._groups[group] = turns  # at the end: every other group comes first
        return ticket


@dataclass
class _Slots:
    """The slots of one model, and the queues for them."""

    count: int
    running: int = 0
    urgent: _FairQueue = field(default_factory=_FairQueue)
    normal: _FairQueue = field(default_factory=_FairQueue)
    last: _FairQueue = field(default_factory=_FairQueue)
    urgent_last: bool = False  # whether the latest to leave a queue was urgent

    def queue(self, ticket: Ticket) -> _FairQueue:
        return self.last if ticket.last else self.urgent if ticket.urgent else self.normal

    def pop(self, now: float) -> Ticket | None:
        """Whose turn it is, if it fits. Who needs several slots holds up the others until these are free."""
        owed = self.urgent_last and bool(self.normal) and now - self.normal.first.entered > CHAT_PATIENCE
        urgent = bool(self.urgent) and not owed
        queue = self.urgent if urgent else self.normal or self.last
        if not queue:
            return None
        if self.running and self.running + queue.first.sequences > self.count:
            return None
        self.urgent_last = urgent
        return queue.pop()


class _Queue:
    """The models whose requests share a queue, and when the latest of them gave back their slots."""

    def __init__(self, aliases: Collection[str]) -> None:
        self.aliases = aliases
        self.released: deque[float] = deque(maxlen=_RELEASES)


class Admission:
    """The slots of every model, and two queues of `queue_max` places: one for the models in `indexing`, and
    one for all others.
    """

    def __init__(
        self,
        slots: Mapping[str, int],
        queue_max: int,
        indexing: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = {alias: _Slots(count) for alias, count in slots.items()}
        self._queue_max = queue_max
        self._clock = clock
        queues = (_Queue(slots.keys() - indexing), _Queue(slots.keys() & indexing))
        self._queues = {alias: queue for queue in queues for alias in queue.aliases}

    def running(self, alias: str) -> int:
        """Slots of `alias` that are taken."""
        return self._slots[alias].running

    def slots(self, alias: str) -> int:
        """How many slots `alias` has."""
        return self._slots[alias].count

    def waiting(self, alias: str) -> int:
        """Requests waiting for a slot of `alias`."""
        slots = self._slots[alias]
        return len(slots.urgent) + len(slots.normal) + len(slots.last)

    def all_running(self) -> int:
        """Slots of all models that are taken."""
        return sum(slots.running for slots in self._slots.values())

    def all_waiting(self, alias: str) -> int:
        """Requests in the queue in which those for `alias` wait."""
        return sum(map(self.waiting, self._queues[alias].aliases))

    def _ahead_of_the_last(self, alias: str) -> int:
        """Requests in the queue in which those for `alias` wait, without those that go last."""
        return sum(self.waiting(each) - len(self._slots[each].last) for each in self._queues[alias].aliases)

    def enter(
        self,
        alias: str,
        client: str,
        urgent: bool,
        granted: Callable[[], None],
        group: str = "",
        sequences: int = 1,
        *,
        last: bool = False,
    ) -> Ticket:
        """A ticket that runs at once if enough slots are free and nobody is before it, and waits otherwise.
        `granted` is called when it runs. Clients of one `group` share its turn. What goes `last` runs when
        nobody else waits for the model.

        Raises:
            QueueFull: it would have to wait, and the queue is full.
        """
        slots = self._slots[alias]
        ticket = Ticket(alias, client, group or client, urgent, last, granted, self._clock(), sequences)
        slots.queue(ticket).add(ticket)
        self._fill(slots)
        if ticket.state == "waiting":
            ahead = self.all_waiting(alias) if last else self._ahead_of_the_last(alias)
            if ahead > self._queue_max:
                slots.queue(ticket).remove(ticket)
                raise QueueFull
            ticket.position = self.waiting(alias) - (0 if last else len(slots.last))
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give back the ticket's slot or place in the queue. A second call changes nothing."""
        slots = self._slots[ticket.alias]
        if ticket.state == "waiting":
            slots.queue(ticket).remove(ticket)
        elif ticket.state == "running":
            slots.running -= ticket.sequences
            self._queues[ticket.alias].released.append(self._clock())
        ticket.state = "gone"
        self._fill(slots)

    def resize(self, alias: str, count: int) -> None:
        """Set the number of slots of `alias`. Requests that run go on, even if there are fewer slots now."""
        slots = self._slots[alias]
        slots.count = count
        self._fill(slots)

    def drain_seconds(self, alias: str) -> float:
        """How long the queue of `alias` takes to empty at the rate of the latest releases; 0 if unknown."""
        released = self._queues[alias].released
        if len(released) < 2:
            return 0.0
        span = self._clock() - released[0]
        return self.all_waiting(alias) * span / len(released)

    def _fill(self, slots: _Slots) -> None:
        while slots.running < slots.count and (ticket := slots.pop(self._clock())):
            ticket.state = "running"
            slots.running += ticket.sequences
            ticket.granted()
