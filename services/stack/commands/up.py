"""`./run up`: starts the services and waits until they are ready."""

import fcntl
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.live import Live
from rich.table import Table

from services.stack.commands import doctor
from services.stack.commands.setup import prepare
from services.stack.commands.status import state_of
from services.stack.console import console
from services.stack.environments import BY_NAME, ROOT
from services.stack.failure import Failure
from services.stack.settings import KEY, Settings, home, load
from services.stack.supervision import health
from services.stack.supervision.supervisor import ServiceState, Supervisor
from services.stack.variables import passed

MAX_STARTS = 3  # a service that was never ready in this many starts is given up
POLL = 0.3  # seconds


def up(engine: str | None, detach: bool) -> int:
    """Prepare what is missing, start the stack and wait until it is ready; returns the exit status.

    In the foreground it stays until Ctrl-C, and then stops the stack.

    Raises:
        Failure: the machine, a setting or a service prevents the start; nothing is left running.
    """
    if Supervisor(Settings(home(), {})).running():
        console.print("Duoserve is already up; nothing was changed.")
        _print_addresses(Settings(home(), {}).recorded() or load())
        return 0
    settings = load().with_engine(engine)
    with _only_one(settings):
        return _up(settings, engine, detach)


def _up(settings: Settings, engine: str | None, detach: bool) -> int:
    doctor.require(settings)
    prepare(settings)
    supervisor = Supervisor(load(settings.home).with_engine(engine))
    check_router(supervisor.settings)
    # Set explicitly, because a shell starts its background jobs with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ask_to_stop)
    began = time.monotonic()
    try:
        supervisor.start(detach)
        _wait_until_ready(supervisor, began)
        console.print(f"\nDuoserve is ready after {time.monotonic() - began:.0f} s.")
        _print_addresses(settings)
        if detach:
            console.print("\n./run status shows its state, ./run down stops it.")
            return 0
        console.print("\nCtrl-C stops it.")
        _watch(supervisor)
    except KeyboardInterrupt:
        console.print("\nStopping.")
        supervisor.stop()
        console.print("Duoserve is down.")
        return 0
    except BaseException:  # also when whoever read the output has left
        supervisor.stop()
        raise
    return 0


def check_router(settings: Settings) -> None:
    """Have the router check its settings, before engines load for minutes in vain.

    Raises:
        Failure: the line with which the router would have ended.
    """
    command = [str(BY_NAME["router"].python), "-m", "router", "--check"]
    environment = passed() | settings.variables | {"DUOSERVE_HOME": str(settings.home)}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if answer.returncode != 0:
        told = answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"]
        raise Failure(told[-1].removeprefix("router: "))


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    settings.run.mkdir(parents=True, exist_ok=True)
    with (settings.run / "up.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure("another ./run up is starting this service; wait for it, or stop it.") from None
        yield


def _wait_until_ready(supervisor: Supervisor, began: float) -> None:
    """Print a line for each service that becomes ready, and on a terminal what the others are doing."""
    settings = supervisor.settings
    ready: set[str] = set()
    starts: dict[str, set[int]] = {name: set() for name in settings.services}
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while len(ready) < len(settings.services):
            states = _states(supervisor)
            for state in states:
                _check_failed(state, starts[state.name], settings)
                if state.name not in ready and state.pid and health.probe(state.name, settings):
                    ready.add(state.name)
                    what = "model ready" if state.name in settings.local_engines else "ready"
                    console.print(f"{time.monotonic() - began:5.0f} s  {state.name:8} {what}")
            if console.is_terminal:
                live.update(_progress(states, ready, settings), refresh=True)
            _pause(POLL)


def _states(supervisor: Supervisor) -> list[ServiceState]:
    while (states := supervisor.states()) is None:
        if supervisor.ended():
            raise Failure(f"the supervisor did not start; see {supervisor.settings.logs}/supervisor.log.")
        _pause(POLL)
    return states


def _check_failed(state: ServiceState, starts: set[int], settings: Settings) -> None:
    if state.pid:
        starts.add(state.pid)
    elif state.exit_status == os.EX_CONFIG or len(starts) >= MAX_STARTS:
        why = health.reason(settings.logs / f"{state.name}.log")
        raise Failure(f"{state.name} does not start: {why} (./run logs {state.name} shows more)")


def _progress(states: list[ServiceState], ready: set[str], settings: Settings) -> Table:
    table = Table.grid(padding=(0, 2))
    for state in states:
        if state.name in ready:
            doing = "[green]ready[/]"
        elif state.pid is None:
            doing = "[red]restarting[/]"
        elif state.name in settings.local_engines:
            doing = health.phase(settings.logs / f"{state.name}.log")
        else:
            doing = "starting"
        table.add_row(state.name, doing)
    return table


def _watch(supervisor: Supervisor) -> None:
    """Print every change of state until the supervisor ends."""
    last: dict[str, str] = {}
    while (states := supervisor.states()) is not None:
        for state in states:
            now = state_of(state.name, state, supervisor.settings)
            if last.get(state.name, "ready") != now:
                console.print(f"{time.strftime('%H:%M:%S')}  {state.name:8} {now}")
            last[state.name] = now
        _pause(1)
    supervisor.stop()
    if supervisor.crashed():
        raise Failure("the supervisor died; all services were stopped. ./run up starts them again.")
    console.print("Duoserve was stopped.")


def _print_addresses(settings: Settings) -> None:
    if settings.random_weights:
        console.print("\nLOAD_FORMAT=dummy: the weights are random, and so is what the models say.")
    key = f"sed -n 's/^{KEY}=/oauth2-bearer=/p' {shlex.quote(str(settings.env_file))}"
    message = {"role": "user", "content": "Name three colours."}
    models = (*settings.aliases, *(f"{name} (remote: {to})" for name, to in settings.remote.items()))
    body = json.dumps({"model": (*settings.chat_models, *settings.remote)[0], "messages": [message]})
    console.print(
        f"\n  API   {settings.url('router')}/v1   models {', '.join(models)}"
        f"\n  Chat  {settings.url('ui')}"
        f"\n  Key   {KEY} in {settings.env_file}"
        f"\n\nTry it:\n  {key} | curl -sK- {settings.url('router')}/v1/chat/completions "
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}",
        markup=False,
    )


_asked_to_stop = False


def _ask_to_stop(_number: int, _frame: FrameType | None) -> None:
    # Only noted: an exception raised here could be swallowed by the code it interrupts.
    global _asked_to_stop
    _asked_to_stop = True


def _pause(seconds: float) -> None:
    """Wait; raises KeyboardInterrupt when the user or the system asks the stack to stop."""
    time.sleep(seconds)
    if _asked_to_stop:
        raise KeyboardInterrupt
