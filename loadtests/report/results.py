"""results.json: everything a run measured, in a form that later versions can still read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests import machine
from loadtests.client import Sample
from loadtests.settings import Service
from loadtests.slo import Verdict
from loadtests.stage import Health, Stage

SCHEMA = 1


class ResultsError(Exception):
    """A results file cannot be used; the message says which and why."""


def collect(
    service: Service,
    *,
    suite: str,
    seed: int,
    stages: list[Stage],
    promises: list[Verdict],
    verdicts: list[Verdict],
    notes: list[str],
    started: datetime,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One run as plain data: `promises` judges it by the README's limits, `verdicts` by the profile's.

    `more` adds what only the benchmark measures.
    """
    return {
        "schema": SCHEMA,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "suite": suite,
        "seed": seed,
        "profile": service.profile,
        "machine": machine.machine(),
        "versions": machine.versions(service),
        "models": machine.models(service),
        "notes": notes,
        "promises": [verdict.as_json() for verdict in promises],
        "verdicts": [verdict.as_json() for verdict in verdicts],
        "stages": [stage.as_json() for stage in stages],
    } | (more or {})


def stages_of(data: dict[str, Any]) -> list[Stage]:
    """The stages of a results file."""
    stages = []
    for entry in data["stages"]:
        health = {k: v for k, v in entry["generator"].items() if k != "saturated"}
        samples = [Sample(**sample) for sample in entry["samples"]]
        stages.append(
            Stage(entry["users"], entry["rate"], entry["seconds"], samples, Health(**health), entry["memory"])
        )
    return stages


def read(path: Path) -> dict[str, Any]:
    """A results file. Raises ResultsError when it is missing, not one, or of another schema."""
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict) or "schema" not in data:
        raise ResultsError(f"{path} is not a results.json of ./run bench")
    if data["schema"] != SCHEMA:
        raise ResultsError(
            f"{path} has schema {data['schema']}, this version reads {SCHEMA}: measure it anew"
        )
    return data


def folder(root: Path, started: datetime) -> Path:
    """A new folder under `root`, named by the time."""
    path = root / f"{started:%Y%m%d-%H%M%S}"
    path.mkdir(parents=True, exist_ok=True)
    return path
