"""`./run status`: the state of every service and model."""

import dataclasses
import json

from rich.table import Table

from services.stack import precision
from services.stack.console import console
from services.stack.settings import Settings, home, load
from services.stack.supervision import health
from services.stack.supervision.supervisor import ServiceState, Supervisor


def status(as_json: bool) -> int:
    """Print the state of every service and model; returns 0 when all are ready, else 1."""
    states = Supervisor(Settings(home(), {})).states()
    # What runs has the settings with which it was started.
    settings = (Settings(home(), {}).recorded() if states else None) or load()
    services, models = _status(settings, states)
    if as_json:
        chosen = precision.chosen(settings) if precision.embedded(settings) else None
        measured = dataclasses.asdict(chosen) if chosen else None
        found = {"services": services, "models": models, "remote": settings.remote, "precision": measured}
        print(json.dumps(found, indent=2))
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("service", "state", "pid", "uptime", "port"):
            table.add_column(heading)
        for name, entry in services.items():
            uptime = f"{entry['uptime_seconds']:.0f} s" if entry["pid"] else "-"
            table.add_row(name, str(entry["state"]), str(entry["pid"] or "-"), uptime, str(entry["port"]))
        console.print(table)
        told = [f"{name} {state}" for name, state in models.items()]
        told += [f"{name} remote ({provider})" for name, provider in settings.remote.items()]
        console.print("models: " + ", ".join(told))
        if precision.embedded(settings):
            console.print(f"precision {precision.chosen(settings) or 'not measured yet'}")
    return 0 if all(entry["state"] == "ready" for entry in services.values()) else 1


def state_of(name: str, state: ServiceState | None, settings: Settings) -> str:
    """Whether a service is `ready`, `loading` or `down`; `state` is what the supervisor knows of it."""
    if state is None or state.pid is None:
        return "down"
    return "ready" if health.probe(name, settings) else "loading"


def _status(
    settings: Settings, states: list[ServiceState] | None
) -> tuple[dict[str, dict[str, object]], dict[str, str]]:
    known = {state.name: state for state in states or []}
    services: dict[str, dict[str, object]] = {}
    for name in settings.services:
        state = known.get(name)
        services[name] = {
            "state": state_of(name, state, settings),
            "pid": state.pid if state else None,
            "uptime_seconds": round(state.uptime, 1) if state else 0.0,
            "port": settings.ports[name],
        }
    return services, {alias: _model_state(alias, services, settings) for alias in settings.aliases}


def _model_state(alias: str, services: dict[str, dict[str, object]], settings: Settings) -> str:
    """The best state of the alias's engines, including those on other hosts."""
    states = {
        str(services[engine.name]["state"])
        if engine.name in services
        else ("ready" if health.answers(f"{engine.url}/health") else "down")
        for engine in settings.engines
        if engine.alias == alias
    }
    return next(state for state in ("ready", "loading", "down") if state in states)
