"""`up`, `status` and `down`: the stack from preparation to its end."""

import dataclasses
import fcntl
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from services.stack import doctor, environments, health, models, precision
from services.stack import settings as stack_settings
from services.stack.failure import Failure
from services.stack.settings import ALIASES, KEY, Settings
from services.stack.supervision import ServiceState, Supervisor

BAD_SETTINGS = 78  # a service's exit status when a setting is wrong (EX_CONFIG of sysexits.h)
MAX_STARTS = 3  # a service that failed this often before it was ready once will not get there
POLL = 0.3  # seconds

_console = Console(highlight=False, soft_wrap=True)


def up(engine: str | None, detach: bool) -> int:
    """Prepare what is missing, start the stack and wait until it is ready; returns the exit status.

    In the foreground it stays until Ctrl-C and then stops the stack.

    Raises:
        Failure: the machine, a setting or a service does not allow it; nothing is left running.
    """
    settings = stack_settings.load(stack_settings.home()).with_engine(engine)
    if Supervisor(settings).running():
        _console.print("Duoserve is already up; nothing was changed.")
        _print_addresses(settings)
        return 0
    with _only_one(settings):
        return _up(settings, engine, detach)


def _up(settings: Settings, engine: str | None, detach: bool) -> int:
    doctor.require(settings)
    prepare(settings)
    supervisor = Supervisor(stack_settings.load(settings.home).with_engine(engine))
    # Said outright, since a shell starts what runs in its background with Ctrl-C ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ask_to_stop)
    began = time.monotonic()
    try:
        supervisor.start(detach)
        _wait_until_ready(supervisor, began)
        _console.print(f"\nDuoserve is ready after {time.monotonic() - began:.0f} s.")
        _print_addresses(settings)
        if detach:
            _console.print("\n./run status shows its state, ./run down stops it.")
            return 0
        _console.print("\nCtrl-C stops it.")
        _watch(supervisor)
    except KeyboardInterrupt:
        _console.print("\nStopping.")
        supervisor.stop()
        _console.print("Duoserve is down.")
        return 0
    except Failure:
        supervisor.stop()
        raise
    return 0


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    settings.run.mkdir(parents=True, exist_ok=True)
    with (settings.run / "up.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure("another ./run up is starting this service; wait for it, or stop it.") from None
        yield


def prepare(settings: Settings) -> None:
    """Install the environments, prepare and measure the embedded model, generate the key: what is missing."""
    engine = "engine" if settings.engine == "cpu" else "engine-cuda"
    environments.ensure(engine, "router", "ui", say=_console.print)
    if settings.engine == "cpu":
        precision.prepare(settings)
        _console.print(f"Precision {precision.chosen(settings)}")
    if not all(models.here(name, revision) for name, revision in models.pinned(settings.profile)):
        fetch_models(settings)
    stack_settings.ensure_key(settings.home, say=_console.print)


def fetch_models(settings: Settings) -> None:
    """Download the models of the profile, and check them.

    Raises:
        Failure: they cannot be had.
    """
    # Imported where it is used: huggingface_hub takes half a second, and most tasks do without.
    from services.stack import fetch

    fetch.fetch(settings)


def down() -> int:
    """Stop the stack; returns the exit status, 0 also when nothing ran."""
    stopped = Supervisor(stack_settings.load(stack_settings.home())).stop()
    _console.print("Duoserve is down." if stopped else "Duoserve was not running.")
    return 0


def status(as_json: bool) -> int:
    """Print the state of every service and model; returns 0 when all are ready, else 1."""
    settings = stack_settings.load(stack_settings.home())
    services, models = _status(settings, Supervisor(settings).states())
    if as_json:
        chosen = precision.chosen(settings) if settings.engine == "cpu" else None
        measured = dataclasses.asdict(chosen) if chosen else None
        print(json.dumps({"services": services, "models": models, "precision": measured}, indent=2))
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("service", "state", "pid", "uptime", "port"):
            table.add_column(heading)
        for name, entry in services.items():
            uptime = f"{entry['uptime_seconds']:.0f} s" if entry["pid"] else "-"
            table.add_row(name, str(entry["state"]), str(entry["pid"] or "-"), uptime, str(entry["port"]))
        _console.print(table)
        _console.print("models: " + ", ".join(f"{name} {state}" for name, state in models.items()))
        if settings.engine == "cpu":
            _console.print(f"precision {precision.chosen(settings) or 'not measured yet'}")
    return 0 if all(entry["state"] == "ready" for entry in services.values()) else 1


def _status(
    settings: Settings, states: list[ServiceState] | None
) -> tuple[dict[str, dict[str, object]], dict[str, str]]:
    known = {state.name: state for state in states or []}
    services: dict[str, dict[str, object]] = {}
    for name in settings.services:
        state = known.get(name)
        services[name] = {
            "state": _state(name, state, settings),
            "pid": state.pid if state else None,
            "uptime_seconds": round(state.uptime, 1) if state else 0.0,
            "port": settings.ports[name],
        }
    return services, {alias: _model_state(alias, services, settings) for alias in ALIASES}


def _model_state(alias: str, services: dict[str, dict[str, object]], settings: Settings) -> str:
    """The best state of the alias' engines, those on other hosts too."""
    states = {
        str(services[engine.name]["state"])
        if engine.name in services
        else ("ready" if health.answers(f"{engine.url}/health") else "down")
        for engine in settings.engines
        if engine.alias == alias
    }
    return next(state for state in ("ready", "loading", "down") if state in states)


def _state(name: str, state: ServiceState | None, settings: Settings) -> str:
    if state is None or state.pid is None:
        return "down"
    return "ready" if health.probe(name, settings) else "loading"


def _wait_until_ready(supervisor: Supervisor, began: float) -> None:
    """Show each service's way to ready, line by line, and on a terminal what it is doing now."""
    settings = supervisor.settings
    ready: set[str] = set()
    starts: dict[str, set[int]] = {name: set() for name in settings.services}
    with Live(console=_console, transient=True, auto_refresh=False) as live:
        while len(ready) < len(settings.services):
            states = _states(supervisor, began)
            for state in states:
                _check_failed(state, starts[state.name], settings)
                if state.name not in ready and state.pid and health.probe(state.name, settings):
                    ready.add(state.name)
                    what = "model ready" if state.name in settings.local_engines else "ready"
                    _console.print(f"{time.monotonic() - began:5.0f} s  {state.name:8} {what}")
            if _console.is_terminal:
                live.update(_progress(states, ready, settings), refresh=True)
            _pause(POLL)


def _states(supervisor: Supervisor, began: float) -> list[ServiceState]:
    while (states := supervisor.states()) is None:
        if time.monotonic() - began > 15:
            raise Failure(f"the supervisor did not start; see {supervisor.settings.logs}/supervisor.log.")
        _pause(POLL)
    return states


def _check_failed(state: ServiceState, starts: set[int], settings: Settings) -> None:
    if state.pid:
        starts.add(state.pid)
    elif state.exit_status == BAD_SETTINGS or len(starts) >= MAX_STARTS:
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
    """Report what changes until supervisor ends."""
    last: dict[str, str] = {}
    while (states := supervisor.states()) is not None:
        for state in states:
            now = _state(state.name, state, supervisor.settings)
            if last.get(state.name, "ready") != now:
                _console.print(f"{time.strftime('%H:%M:%S')}  {state.name:8} {now}")
            last[state.name] = now
        _pause(1)
    if supervisor.stop():
        raise Failure("the supervisor died; all services were stopped. ./run up starts them again.")
    _console.print("Duoserve was stopped.")


def _print_addresses(settings: Settings) -> None:
    key = f"sed -n 's/^{KEY}=/oauth2-bearer=/p' {shlex.quote(str(settings.env_file))}"
    body = '{"model": "coder", "messages": [{"role": "user", "content": "Name three colours."}]}'
    _console.print(
        f"\n  API   {settings.url('router')}/v1   models coder and general"
        f"\n  Chat  {settings.url('ui')}"
        f"\n  Key   {KEY} in {settings.env_file}"
        f"\n\nTry it:\n  {key} | curl -sK- {settings.url('router')}/v1/chat/completions "
        f"-H 'Content-Type: application/json' -d '{body}'",
        markup=False,
    )


_asked_to_stop = False


def _ask_to_stop(_number: int, _frame: FrameType | None) -> None:
    # Only noted: raised here, it could be swallowed by whatever runs just then.
    global _asked_to_stop
    _asked_to_stop = True


def _pause(seconds: float) -> None:
    """Wait; raises KeyboardInterrupt when the user or the system asks the stack to stop."""
    time.sleep(seconds)
    if _asked_to_stop:
        raise KeyboardInterrupt


def follow_logs(service: str | None, follow: bool) -> int:
    """Print the end of one or all logs, and with `follow` what is added; returns the exit status."""
    settings = stack_settings.load(stack_settings.home())
    known = [*settings.services, "supervisor"]
    if service and service not in known:
        raise Failure(f"{service} is no service; there are {', '.join(known)}.")
    names = [service] if service else known
    paths = [str(path) for name in names if (path := settings.logs / f"{name}.log").exists()]
    if not paths:
        raise Failure(f"no logs in {settings.logs} yet; ./run up starts the service.")
    try:
        return subprocess.run(["tail", "-n", "100", *(["-F"] if follow else []), *paths]).returncode
    except KeyboardInterrupt:
        return 0
    finally:
        sys.stdout.flush()
