"""The real service under load, with a fault every few minutes, for an hour: does anything grow or get lost?

`./run test-soak` runs it for SOAK_SECONDS with a fault every SOAK_EVERY seconds, shows how it goes, and
writes a page into reports/.
"""

import contextlib
import itertools
import math
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import playwright.sync_api
import psutil
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.chat_page import CHROMIUM, Chat
from tests.soak import report
from tests.soak.accounts import Accounts, balance
from tests.soak.clients import KINDS, MODELS, Body, Clients, Request, prompts
from tests.soak.report import Check, Fault, Soak
from tests.soak.watch import SERVICES, Life, Watch, files, holdings, slope
from tests.support import ROOT
from tests.support.disk import Disk
from tests.support.redis import Redis
from tests.support.stack import Stack
from tests.support.waiting import wait_for

SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
EVERY = float(os.environ.get("SOAK_EVERY", "240"))
CLIENTS = 6
DEADLINE = 60  # REQUEST_TIMEOUT of this stack
LOG_KILOBYTES = 100_000
BROKEN_SECONDS = min(30.0, EVERY / 3)  # for which Redis is gone, or the disk full
VISITS_EVERY = 60.0  # seconds between two visits of the chat app
SHOWN_EVERY = 30.0
# Tokens: of a prompt that fills the KV cache; that a step reads of one prompt while others wait, and of all
# (the cpu profile's long-prefill-token-threshold and max-num-batched-tokens).
LONG_PROMPT, PART, STEP = 3000, 64, 128
WARM_UP = min(300.0, SECONDS / 10)  # of a life, before its memory is judged
GROWTH = 0.05  # of its memory by which a service may grow in an hour
# Of a core that the router and the chat app may use when nobody does anything, measured for IDLE_SECONDS.
IDLE_SHARE, IDLE_SECONDS = 0.02, 60.0
# So many more threads, descriptors and sockets than at the start are no leak: pools grow with load.
SPARE = 5


class Visitor(threading.Thread):
    """Somebody who opens the chat app, asks, reads the answer and closes it, again and again."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._ending = threading.Event()
        self.away = threading.Lock()  # held while nobody may visit
        self.visits: list[tuple[float, float, bool]] = []  # from, to, and whether it was answered

    def run(self) -> None:
        if not CHROMIUM:
            return
        with sync_playwright() as started:
            expect.set_options(timeout=DEADLINE * 1000)
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            while not self._ending.is_set():
                with self.away:
                    began = time.monotonic()
                    answered = self._visit(browser)
                    self.visits.append((began, time.monotonic(), answered))
                self._ending.wait(VISITS_EVERY)
            browser.close()

    def _visit(self, browser: Browser) -> bool:
        context = browser.new_context()
        context.set_default_timeout(DEADLINE * 1000)
        try:
            chat = Chat(context.new_page(), self._url).open()
            chat.ask(f"Say hello to number {len(self.visits)}.")
            chat.answered(seconds=DEADLINE)
        except (AssertionError, playwright.sync_api.Error):
            return False
        finally:
            context.close()
        return True

    def stop(self) -> None:
        self._ending.set()
        self.join()


class Run:
    """One soak: the stack, those who use it, and what is broken."""

    def __init__(self, stack: Stack, disk: Disk, redis: Redis) -> None:
        self.stack, self.disk, self.redis = stack, disk, redis
        self.clients = Clients(stack.url, stack.headers, CLIENTS)
        self.visitor = Visitor(stack.ui_url)
        self.accounts = Accounts(stack)
        self.watch = Watch(stack)
        self.faults: list[Fault] = []
        self.kills: list[float] = []
        self.full: list[tuple[float, float]] = []
        self._warm: dict[str, int] = {}  # by service, the process that is
        self._shown = 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.watch.began

    def kill_engine(self, alias: str) -> None:
        max(self.stack.processes(alias), key=lambda process: process.memory_info().rss).kill()
        wait_for(lambda: not self._ready(alias), "the router sees the model down")

    def kill_router(self) -> None:
        router = min(self.stack.processes("router"), key=lambda process: process.create_time())
        self.accounts.look()
        self.kills.append(time.monotonic())
        router.kill()
        psutil.wait_procs([router], timeout=10)
        self.accounts.died()

    def lose_redis(self) -> None:
        self.redis.kill()
        self._wait(BROKEN_SECONDS)
        self.redis.start()

    def fill_disk(self) -> None:
        with self.visitor.away:  # so that it is known whose lines are missing
            began = time.monotonic()
            self.disk.spoil("full")
            self._wait(BROKEN_SECONDS)
            self.disk.repair("full")
            self.full.append((began, time.monotonic()))

    def read_nothing(self, alias: str = "coder") -> None:
        """Clients take most slots of a model until the deadline ends their requests."""
        asked = self.clients.never_read(3, alias, DEADLINE + 30)
        names = {request.id for request in asked}

        def ended() -> bool:
            self._wait(1)
            return names <= {record["client_request_id"] for record in self.accounts.records()}

        wait_for(ended, "the router ended them", DEADLINE + 25)

    def inject(self, what: str, fault: Callable[[], None]) -> None:
        """Break something, and wait until the service answers again."""
        found = Fault(what, self.elapsed)
        self.faults.append(found)
        self.say(f"fault {len(self.faults)}: {what}")
        try:
            fault()
            for model in MODELS:
                wait_for(lambda: self._ready(model), f"{model} is ready again", 600)  # noqa: B023
                wait_for(lambda: self._answers(model), f"{model} answers again", 120)  # noqa: B023
        except (AssertionError, OSError, httpx.HTTPError, psutil.Error) as error:  # the page tells
            self.say(f"{type(error).__name__}: {error}")
            return
        found.back = self.elapsed
        self.say(f"back after {found.back - found.began:.0f} s")
        self.warm_up()

    def warm_up(self) -> None:
        """Have new processes take the memory that they keep. Left to the load, that would look like a leak.

        On a CPU, a block of the KV cache takes memory when it is first used, and oneDNN keeps code for each
        number of tokens that a step has had. The first requests of each kind, side by side, take some more,
        and so does what the router and vLLM's API server hold of answers that nobody reads.
        """
        new = [name for name in (*MODELS, "router") if self._is_new(name)]
        for model in MODELS:
            if model in new:
                self._warm_up_engine(model)
        for model in MODELS:
            if model in new or (model == MODELS[0] and "router" in new):
                self.say(f"warming up, with three clients of {model} that read nothing")
                self.read_nothing(model)

    def _is_new(self, service: str) -> bool:
        process = min(self.stack.processes(service), key=lambda process: process.create_time()).pid
        known, self._warm[service] = self._warm.get(service), process
        return known != process

    def _warm_up_engine(self, alias: str) -> None:
        tokens = _cache_tokens(self.stack.engines[alias])
        self.say(f"warming up {alias}, with {tokens:,} tokens in its KV cache")
        bodies = [prompts(LONG_PROMPT)] * math.ceil(tokens / LONG_PROMPT)
        bodies += [prompts(count) for count in range(1, PART + 1)]
        bodies += [prompts(PART, count) for count in range(1, STEP - PART + 1)]
        for body in bodies:
            wait_for(lambda: self._answers(alias, "warm up", body), f"{alias} answers", 300)  # noqa: B023
        kinds = [kind for kind in KINDS for _ in range(2 * CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(partial(self.clients.ask, alias), kinds))

    def until(self, seconds: float) -> None:
        """Wait until so many seconds have passed since the beginning."""
        self._wait(seconds - self.elapsed)

    def show(self) -> None:
        """A line about how it goes, from time to time."""
        if self.elapsed - self._shown < SHOWN_EVERY:
            return
        self._shown = self.elapsed
        outcomes = Counter(request.outcome or "in flight" for request in self.clients.requests)
        memory = ", ".join(f"{name} {size:.0f}" for name, size in self.watch.now().items())
        counts = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
        self.say(f"{outcomes.total()} requests ({counts}); {len(self.faults)} faults; MB: {memory}")

    def say(self, text: str) -> None:
        minutes, seconds = divmod(int(self.elapsed), 60)
        print(f"[{minutes:3}:{seconds:02}] {text}", flush=True)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.show()
            time.sleep(min(1.0, left))

    def _ready(self, alias: str) -> bool:
        self.show()
        answer = httpx.get(f"{self.stack.url}/ready", timeout=10).json()
        return bool(answer["models"][alias]["state"] == "ready")

    def _answers(self, model: str, kind: str = "chat", body: Body | None = None) -> bool:
        if self.clients.ask(model, kind, body).outcome == "answered":
            return True
        time.sleep(1)
        return False


@pytest.fixture
def run(own_stack: Stack, tmp_path: Path) -> Iterator[Run]:
    """A stack with its logs on a small disk and its limits in Redis, up; everything is ended afterwards."""
    with contextlib.ExitStack() as ending:
        redis = Redis(tmp_path).start()
        ending.callback(redis.kill)
        disk = Disk(own_stack.home / "data" / "logs", LOG_KILOBYTES)
        ending.callback(disk.remove)
        with (own_stack.home / ".env").open("a") as settings:
            limits = "REQUESTS_PER_MINUTE=1000000\nTOKENS_PER_MINUTE=100000000\n"
            settings.write(f"REDIS_URL={redis.url}\nREQUEST_TIMEOUT={DEADLINE}\n{limits}")
        ending.callback(own_stack.run, "down")
        up = own_stack.run("up", "--detach")
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}\n{own_stack.logs()}"
        run = Run(own_stack, disk, redis)
        ending.callback(run.clients.close)
        yield run


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS + 3600)
def test_nothing_grows_and_nothing_is_lost(run: Run) -> None:
    stack, clients, visitor = run.stack, run.clients, run.visitor
    soak = Soak(SECONDS, EVERY, CLIENTS)
    run.warm_up()
    visitor.start()
    if CHROMIUM:
        wait_for(lambda: visitor.visits, "the chat app was visited")
    with visitor.away:
        run.say("idle at the start")
        _settle(run)
        time.sleep(20)
        held, kept = holdings(stack), files(stack)

    run.watch.began = time.monotonic()
    run.watch.start()
    clients.start()
    faults: list[tuple[str, Callable[[], None]]] = [
        ("router killed", run.kill_router),
        (f"Redis gone for {BROKEN_SECONDS:.0f} s", run.lose_redis),
        (f"disk of the logs full for {BROKEN_SECONDS:.0f} s", run.fill_disk),
        ("three clients read nothing", run.read_nothing),
        *((f"`{model}`'s engine killed", partial(run.kill_engine, model)) for model in MODELS),
    ]
    for number, fault in enumerate(itertools.cycle(faults), 1):
        if max(number * EVERY, run.elapsed) > SECONDS - EVERY:  # no time to come back
            break
        run.until(number * EVERY)
        run.inject(*fault)
    run.until(SECONDS)
    clients.stop()
    visitor.stop()
    run.watch.stop()
    _settle(run)
    run.say(f"idle at the end, for {IDLE_SECONDS:.0f} s")
    idle = _idle_shares(stack)
    patience = time.monotonic() + 120  # connections are kept alive for some time
    while _excess(held, now_held := holdings(stack)) and time.monotonic() < patience:
        time.sleep(2)
    now_kept, shared = files(stack), run.watch.shared_memory_left()

    soak.holdings = {name: (held[name], now_held[name]) for name in SERVICES}
    soak.lives, soak.faults = run.watch.lives, run.faults
    soak.requests = len(clients.requests)
    for request in clients.requests:
        soak.kinds.setdefault(request.kind, Counter())[request.outcome] += 1
    soak.checks += [*_memory(soak.lives), *_failures(run), *_accounting(run, soak)]
    soak.checks += _left_over(run, held, now_held)
    for what, count in kept.items():
        soak.checks.append(
            Check(what, str(now_kept[what]), f"{count} as at the start", now_kept[what] <= count)
        )
    soak.checks.append(Check("shared memory of processes that ended", str(len(shared)), "0", not shared))
    for name, share in idle.items():
        judged = name in ("router", "ui")
        allowed, holds = (f"{IDLE_SHARE:.0%}", share < IDLE_SHARE) if judged else ("–", True)
        soak.checks.append(Check(f"idle: share of a core, {name}", f"{share:.2%}", allowed, holds))
    down = stack.run("down")
    left = len(stack.processes())
    soak.checks.append(Check("processes after `./run down`", str(left), "0", down.returncode == left == 0))
    loads = run.watch.loads
    soak.notes.append(
        f"The machine's load average was {sum(loads) / len(loads):.1f} in the mean, at most {max(loads):.1f}."
    )
    soak.notes.append(
        "Steps of the clock were not executed: a time namespace shifts only the monotonic and the boot-time "
        "clock, and only before a process starts in it; the wall clock is that of the whole machine."
    )
    folder = ROOT / "reports" / f"soak-{time.strftime('%Y-%m-%d-%H%M', time.gmtime())}"
    report.write(folder, soak)
    print(f"\n{(folder / 'README.md').read_text()}\n{folder}")
    assert [check for check in soak.checks if not check.holds] == []


def _settle(run: Run) -> None:
    """Wait until no request is left anywhere."""

    def quiet() -> bool:
        engines = sum(_running(url) for url in run.stack.engines.values())
        names = ("duoserve_in_flight", "duoserve_waiting", "duoserve_engine_in_flight")
        return engines == 0 and all(run.accounts.gauge(name) == 0 for name in names)

    wait_for(quiet, "slots and queues are empty", DEADLINE + 60)


def _running(url: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
    return sum(float(line.split()[-1]) for line in lines if line.startswith(names))


def _cache_tokens(url: str) -> int:
    (info,) = re.findall(r"^vllm:cache_config_info\{(.*)\}", httpx.get(f"{url}/metrics").text, re.M)
    values = dict(re.findall(r'(\w+)="([^"]*)"', info))
    return int(values["num_gpu_blocks"]) * int(values["block_size"])


def _idle_shares(stack: Stack) -> dict[str, float]:
    """By service, the share of a core that it uses while nobody does anything."""
    before, began = {name: stack.cpu_seconds(name) for name in SERVICES}, time.monotonic()
    time.sleep(IDLE_SECONDS)
    seconds = time.monotonic() - began
    return {name: (stack.cpu_seconds(name) - before[name]) / seconds for name in SERVICES}


def _memory(lives: list[Life]) -> Iterator[Check]:
    for life in lives:
        found = slope(life.after(WARM_UP))
        if found is None:
            continue
        minutes = (life.readings[-1][0] - life.readings[0][0]) / 60
        allowed = GROWTH * found.level
        yield Check(
            f"memory: {life.service}, {minutes:.0f} minutes, {found.level:.0f} MB",
            f"{found.value:+.1f} MB/h ({found.low:+.1f} to {found.high:+.1f})",
            f"0 within the interval, or {allowed:.0f} MB/h",
            found.low <= 0 or found.value <= allowed,
        )


def _failures(run: Run) -> Iterator[Check]:
    """Requests and visits may only fail while something is broken."""
    began = run.watch.began
    times = [(began + fault.began, began + fault.back) for fault in run.faults]

    def in_a_fault(start: float, end: float) -> bool:
        return any(start <= mended and end >= broken for broken, mended in times)

    back = sum(fault.back < float("inf") for fault in run.faults)
    yield Check("faults after which all was back", f"{back} of {len(times)}", "all", back == len(times))
    outside = []
    for request in run.clients.requests:
        for fault, (broken, mended) in zip(run.faults, times, strict=True):
            if request.began <= mended and request.ended >= broken:
                fault.outcomes[request.outcome] += 1
        failed = request.outcome in ("refused", "failed", "broken")
        if failed and not in_a_fault(request.began, request.ended):
            outside.append(f"{request.id} {request.kind} {request.outcome} {request.status}")
    print(outside[:20])
    yield Check("requests that failed while nothing was broken", str(len(outside)), "0", not outside)
    visits = [visit for visit in run.visitor.visits if not in_a_fault(*visit[:2])]
    answered = sum(ok for *_, ok in visits)
    yield Check(
        "visits of the chat app answered while nothing was broken",
        f"{answered} of {len(visits)}",
        "all",
        answered == len(visits),
    )


def _accounting(run: Run, soak: Soak) -> Iterator[Check]:
    run.accounts.look()
    records = run.accounts.records()
    found = balance(run.clients.requests, records, run.kills, run.full)
    routers = run.accounts.routers
    counted = sum(router.counted for router in routers)
    later, lost = sum(router.later for router in routers), sum(router.lost for router in routers)
    yield Check("requests sent, and in the log exactly once", f"{found.sent:,}, {found.logged:,}", "–", True)
    yield Check("requests twice in the log", str(len(found.twice)), "0", not found.twice)
    in_flight = _in_flight(run.clients.requests, run.kills)
    yield Check(
        "not in the log: in flight when the router was killed",
        str(len(found.killed)),
        f"{in_flight} were in flight and not answered",
        True,
    )
    yield Check(
        "not in the log: ended while its disk was full",
        str(len(found.full)),
        f"{lost}: counted, without a line",
        len(found.full) == lost,
    )
    print([request for request in run.clients.requests if request.id in found.missing])
    yield Check("not in the log for no reason", str(len(found.missing)), "0", not found.missing)
    yield Check(
        "counted by the router, in all its lives",
        f"{counted:,} + {later} after the last look at one that was killed",
        f"{len(records) + lost:,}: lines and lost lines",
        counted + later == len(records) + lost,
    )
    soak.notes += [
        f"{found.others.total()} further lines are about requests of the chat app, which was visited "
        f"{len(run.visitor.visits)} times.",
        "A request that is in flight in a router that is killed can be neither logged nor counted. Counters "
        "begin anew with each router, so they were read just before each kill, while no line was written.",
    ]


def _in_flight(requests: list[Request], kills: list[float]) -> int:
    return sum(
        any(request.began - 3 <= kill <= request.ended + 3 for kill in kills)
        for request in requests
        if request.outcome != "answered"
    )


def _excess(before: dict[str, Counter[str]], after: dict[str, Counter[str]]) -> list[str]:
    """What services hold more than they may."""
    found = []
    for name, held in after.items():
        for what, count in held.items():
            spare = 0 if what == "processes" else SPARE
            if count > before[name][what] + spare:
                found.append(f"{name}: {what} {before[name][what]} → {count}")
    return found


def _left_over(
    run: Run,
    before: dict[str, Counter[str]],
    after: dict[str, Counter[str]],
) -> Iterator[Check]:
    excess = _excess(before, after)
    yield Check(
        "processes, threads, descriptors and sockets when idle",
        "; ".join(excess) or "as at the start",
        f"as at the start, and up to {SPARE} more of all but processes",
        not excess,
    )
    gauges: dict[str, Any] = {
        name: run.accounts.gauge(f"duoserve_{name}") for name in ("in_flight", "waiting", "engine_in_flight")
    }
    yield Check(
        "slots taken and requests waiting when idle",
        ", ".join(f"{name} {value:.0f}" for name, value in gauges.items()),
        "0",
        not any(gauges.values()),
    )
