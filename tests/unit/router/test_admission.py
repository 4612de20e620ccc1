from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.admission import CHAT_PATIENCE, Admission, QueueFull, Ticket

SLOTS = {"coder": 2, "general": 3}
QUEUE_MAX = 5


def nothing() -> None:
    pass


def fill(admission: Admission, alias: str = "coder") -> list[Ticket]:
    return [admission.enter(alias, "filler", False, nothing) for _ in range(SLOTS[alias])]


class Life(RuleBasedStateMachine):
    """Any order of arrivals, endings and departures: no place is lost and none is given twice."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(SLOTS, QUEUE_MAX)
        self.tickets: list[Ticket] = []
        self.granted: Counter[int] = Counter()

    @rule(
        alias=st.sampled_from(list(SLOTS)),
        client=st.sampled_from("abc"),
        urgent=st.booleans(),
        sequences=st.integers(1, 2),
    )
    def arrive(self, alias: str, client: str, urgent: bool, sequences: int) -> None:
        number = len(self.tickets)
        first = urgent or not self.admission.waiting(alias)
        room = first and self.admission.running(alias) + sequences <= SLOTS[alias]
        room |= self.admission.all_waiting("coder") < QUEUE_MAX
        try:
            ticket = self.admission.enter(
                alias, client, urgent, lambda: self.granted.update([number]), sequences=sequences
            )
        except QueueFull:
            assert self.admission.all_waiting("coder") == QUEUE_MAX
            return
        assert room
        self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        self.admission.leave(ticket)
        self.admission.leave(ticket)  # a second time changes nothing

    @invariant()
    def no_place_is_lost(self) -> None:
        states = Counter((ticket.alias, ticket.state) for ticket in self.tickets)
        for alias, slots in SLOTS.items():
            running, waiting = self.admission.running(alias), self.admission.waiting(alias)
            mine = [ticket for ticket in self.tickets if ticket.alias == alias]
            assert running == sum(t.sequences for t in mine if t.state == "running") <= slots
            assert waiting == states[alias, "waiting"]
            most = max((ticket.sequences for ticket in mine if ticket.state == "waiting"), default=0)
            assert not (waiting and running + most <= slots), "someone waits beside enough free slots"
        assert self.admission.all_waiting("coder") <= QUEUE_MAX

    @invariant()
    def granted_once(self) -> None:
        for number, ticket in enumerate(self.tickets):
            assert self.granted[number] <= 1
            assert (self.granted[number] == 1) or ticket.state != "running"


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase


def served_order(admission: Admission, running: list[Ticket], waiting: list[Ticket]) -> list[Ticket]:
    """The order in which `waiting` get their slots when those who run end one by one."""
    order: list[Ticket] = []
    for ticket in [*running]:
        admission.leave(ticket)
    while True:
        now = [t for t in waiting if t.state == "running"]
        if not now:
            return order
        order += now
        for ticket in now:
            admission.leave(ticket)


def test_first_come_first_served_within_a_client() -> None:
    admission = Admission({"coder": 1}, 100)
    running = [admission.enter("coder", "x", False, nothing)]
    waiting = [admission.enter("coder", "a", False, nothing) for _ in range(20)]
    assert served_order(admission, running, waiting) == waiting


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=60))
def test_clients_take_turns(arrivals: list[str]) -> None:
    admission = Admission({"coder": 1}, 100)
    running = [admission.enter("coder", "x", False, nothing)]
    waiting = [admission.enter("coder", client, False, nothing) for client in arrivals]
    order = [ticket.client for ticket in served_order(admission, running, waiting)]
    left = Counter(arrivals)
    for before, client in enumerate(order):
        # Between two turns of one client every other client that still waits has one.
        previous = next((i for i in range(before - 1, -1, -1) if order[i] == client), None)
        if previous is not None:
            others = {other for other in left if other != client and left[other] > 0}
            assert others <= set(order[previous:before]) | {c for c in others if left[c] == 0}
        left[client] -= 1


def test_small_clients_finish_before_the_backlog_of_a_big_one() -> None:
    admission = Admission({"coder": 4}, 100)
    running = [admission.enter("coder", "big", False, nothing) for _ in range(4)]
    waiting = [admission.enter("coder", "big", False, nothing) for _ in range(46)]
    small = [admission.enter("coder", client, False, nothing) for client in ("b", "c") for _ in range(5)]
    order = served_order(admission, running, waiting + small)
    assert max(order.index(ticket) for ticket in small) < 16  # three take turns: 15 turns at most


def test_what_goes_last_waits_for_everyone_and_costs_nobody_a_place() -> None:
    admission = Admission({"coder": 1}, 2)
    running = [admission.enter("coder", "x", False, nothing)]
    titles = [admission.enter("coder", "a", False, nothing, last=True) for _ in range(2)]
    with pytest.raises(QueueFull):
        admission.enter("coder", "a", False, nothing, last=True)
    others = [admission.enter("coder", "b", urgent, nothing) for urgent in (False, True)]
    assert [ticket.position for ticket in others] == [1, 2]
    with pytest.raises(QueueFull):
        admission.enter("coder", "b", False, nothing)
    assert admission.all_waiting("coder") == 4
    assert served_order(admission, running, [*titles, *others]) == [others[1], others[0], *titles]


def test_what_goes_last_does_not_pass_a_request_that_needs_several_slots() -> None:
    admission = Admission({"coder": 2}, 9)
    running = admission.enter("coder", "x", False, nothing)
    wide = admission.enter("coder", "a", False, nothing, sequences=2)
    title = admission.enter("coder", "b", False, nothing, last=True)
    assert (wide.state, title.state) == ("waiting", "waiting")
    admission.leave(running)
    assert (wide.state, title.state) == ("running", "waiting")


def classes_served(chats: int, urgent: int, waited: float, turn: float) -> list[str]:
    """Who gets the one slot in turn, every `turn` seconds, when all have waited so long already."""
    now = [0.0]
    admission = Admission({"coder": 1}, 100, clock=lambda: now[0])
    running = [admission.enter("coder", "x", False, nothing)]
    chat = [admission.enter("coder", "a", False, nothing) for _ in range(chats)]
    waiting = [*chat, *(admission.enter("coder", "b", True, nothing) for _ in range(urgent))]
    now[0] = waited
    order: list[str] = []
    while running:
        now[0] += turn
        admission.leave(running[0])
        running = [ticket for ticket in waiting if ticket.state == "running"]
        order += ["chat" if ticket in chat else "urgent" for ticket in running]
    return order


def test_autocompletion_overtakes_a_chat_until_its_patience_is_over_and_then_takes_turns() -> None:
    order = classes_served(3, 12, waited=0, turn=CHAT_PATIENCE / 4)
    assert order == ["urgent"] * 4 + ["chat", "urgent"] * 3 + ["urgent"] * 5


def test_a_backlog_of_impatient_chats_does_not_hold_up_autocompletion() -> None:
    assert classes_served(50, 3, waited=10 * CHAT_PATIENCE, turn=1)[:6] == ["urgent", "chat"] * 3


def test_one_model_never_waits_behind_the_other() -> None:
    admission = Admission(SLOTS, QUEUE_MAX)
    fill(admission, "coder")
    for _ in range(QUEUE_MAX):
        admission.enter("coder", "a", False, nothing)
    assert admission.enter("general", "b", False, nothing).state == "running"
    with pytest.raises(QueueFull):
        admission.enter("coder", "b", False, nothing)


def test_what_indexes_takes_no_place_in_the_queue_of_the_others() -> None:
    admission = Admission({"coder": 1, "embedding": 1}, QUEUE_MAX, indexing={"embedding"})
    for alias in ("coder", "embedding"):
        for _ in range(1 + QUEUE_MAX):
            assert admission.enter(alias, "a", False, nothing).state != "gone"
        with pytest.raises(QueueFull):
            admission.enter(alias, "a", False, nothing)
    assert (admission.all_waiting("coder"), admission.all_waiting("embedding")) == (QUEUE_MAX, QUEUE_MAX)


def test_position_is_the_place_in_the_line() -> None:
    admission = Admission({"coder": 1}, 10)
    positions = [admission.enter("coder", "a", False, nothing).position for _ in range(4)]
    assert positions == [0, 1, 2, 3]


def test_drain_rate_is_that_of_the_latest_releases() -> None:
    now = [0.0]
    admission = Admission({"coder": 1}, 10, clock=lambda: now[0])
    tickets = [admission.enter("coder", "a", False, nothing) for _ in range(8)]
    assert admission.drain_seconds("coder") == 0.0
    for ticket in tickets[:4]:
        admission.leave(ticket)
        now[0] += 2.0
    # Three wait, one leaves every two seconds.
    assert admission.drain_seconds("coder") == pytest.approx(3 * 2.0)


def test_a_client_with_many_names_has_the_turns_of_one() -> None:
    admission = Admission({"coder": 1}, 100)
    order: list[str] = []
    (running,) = [admission.enter("coder", "filler", False, nothing)]
    tickets = [
        admission.enter("coder", name, False, lambda name=name: order.append(name), group)  # type: ignore[misc]
        for group, name in [*(("greedy", f"name-{i}") for i in range(6)), ("fair", "ann"), ("fair", "bob")]
    ]
    admission.leave(running)
    for _ in tickets:
        admission.leave(next(ticket for ticket in tickets if ticket.state == "running"))
    assert order == ["name-0", "ann", "name-1", "bob", *(f"name-{i}" for i in range(2, 6))]


def test_a_request_waits_for_as_many_slots_as_it_asks_for_answers() -> None:
    admission = Admission({"general": 3}, QUEUE_MAX)
    one, other = (admission.enter("general", "a", False, nothing) for _ in range(2))
    wide = admission.enter("general", "b", False, nothing, sequences=3)
    narrow = admission.enter("general", "c", False, nothing)
    assert (wide.state, narrow.state, narrow.position) == ("waiting", "waiting", 2), "nobody overtakes it"
    admission.leave(one)
    assert wide.state == "waiting"
    admission.leave(other)
    assert (wide.state, narrow.state, admission.running("general")) == ("running", "waiting", 3)
    admission.leave(wide)
    assert (narrow.state, admission.running("general")) == ("running", 1)
