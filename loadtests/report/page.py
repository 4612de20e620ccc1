"""Writes report.html for people, report.md for a CI summary, and results.json for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from loadtests.judge.stats import Estimate
from loadtests.measure.sample import values
from loadtests.report import tables
from loadtests.report.changes import changes
from loadtests.report.results import Run

if TYPE_CHECKING:
    from loadtests.report.plots import Figure

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def write(folder: Path, run: Run, old: Run | None = None) -> None:
    """Write the three files into `folder`; with `old`, what changed since that run as well."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(run.as_json(), separators=(",", ":")) + "\n")
    (folder / "report.md").write_text(markdown(run, old))
    (folder / "report.html").write_text(page(run, old))


def markdown(run: Run, old: Run | None = None) -> str:
    """The report for a CI summary."""
    return TEMPLATES.get_template("report.md").render(
        run=run, about=_about(run), sections=tables.sections(run, old)
    )


def page(run: Run, old: Run | None = None) -> str:
    """The report as one HTML file that loads nothing else."""
    return TEMPLATES.get_template("report.html").render(
        run=run, about=_about(run), sections=tables.sections(run, old), figures=_figures(run, old)
    )


def _about(run: Run) -> list[str]:
    machine = run.machine
    hardware = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    if machine["gpus"]:
        hardware += f"; {', '.join(machine['gpus'])}"
    started, finished = (time.isoformat(timespec="seconds") for time in (run.started, run.finished))
    return [
        f"{started} to {finished}, commit {run.commit or 'unknown'}",
        f"suite {run.suite}, profile {run.profile}, seed {run.seed}",
        hardware,
        ", ".join(f"{alias}: {model}" for alias, model in run.models.items()),
        ", ".join(f"{name} {version}" for name, version in run.versions.items()),
        *run.notes,
    ]


def _figures(run: Run, old: Run | None) -> list[Figure]:
    from loadtests.report import plots  # matplotlib takes a while to load, and only the page needs it

    stages = run.stages
    limits = {verdict.metric: verdict.limit for verdict in run.promises if verdict.unit == "ms"}
    kinds: tuple[str, ...] = ("completion", "chat", "canary", "burst")
    limit = limits.get("ttft")
    if any(s.session for stage in stages for s in stage.samples):
        kinds, limit = ("turn",), None
    figures = [
        plots.latency_by_users(stages, "ttft", "Time to first token", kinds, limit),
        plots.ttft_distribution(stages, kinds, limit),
    ]
    if any(s.kind == "completion" for stage in stages for s in stage.samples):
        title = "Completions, end to end"
        figures.append(plots.latency_by_users(stages, "total", title, ("completion",), limits.get("total")))
    figures.append(plots.throughput(stages))
    if any(values(stage.samples, "queue_wait") for stage in stages):
        figures.append(plots.latency_by_users(stages, "queue_wait", "Wait in the router's queue", (), None))
    for stage in stages:
        if stage.memory:
            figures += plots.over_time(stage)
    if run.overhead:
        rows = [
            (f"{entry['streams']} at once: {metric}", Estimate(**measured["ratio"]))
            for entry in run.overhead
            for metric, measured in entry["metrics"].items()
        ]
        figures.append(plots.ratios(rows, "Router overhead", "through the router / direct"))
    if run.relay:
        relay = [(entry["name"], entry["chunks_per_second"]) for entry in run.relay]
        figures.append(plots.bars(relay, "Relay capacity", "chunks per second"))
    if run.starts:
        starts = [(entry["name"], entry["seconds"]) for entry in run.starts]
        figures.append(plots.bars(starts, "Start-up until all models answer", "seconds"))
    if run.capacity and run.capacity.levels:
        figures.insert(0, plots.capacity(run.capacity))
    if old:
        rows = [(change.name, change.ratio) for change in changes(old, run)]
        figures.insert(0, plots.ratios(rows, "Changes since the earlier run", "new / old"))
    return figures
