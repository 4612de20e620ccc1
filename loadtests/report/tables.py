"""The tables of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from loadtests.judge import stats
from loadtests.judge.capacity import Capacity
from loadtests.judge.stats import Estimate
from loadtests.judge.verdict import Verdict
from loadtests.measure.sample import Sample, found_again, sessions, values
from loadtests.measure.stage import Stage
from loadtests.report.changes import Change, changes
from loadtests.report.results import Run


class Table(NamedTuple):
    """Column headings, and rows of as many cells."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """A table under a title, with a note on how to read it."""

    title: str
    note: str
    table: Table


def sections(run: Run, old: Run | None = None) -> list[Section]:
    """What was measured, as far as it was; with `old`, what changed since that run as well."""
    found = [
        Section("Capacity", *_about_capacity(run.capacity)),
        Section("Levels of load", "", levels(run.stages)),
        Section("Failed and refused requests", "", _failures(run.stages)),
        Section("By kind of request", "", _kinds(run.stages)),
        Section(
            "Replayed sessions",
            "Found again: of the tokens of each turn before, those that were in the prefix cache.",
            _sessions(run.stages),
        ),
        Section("Router overhead", "Measured in turns, on the same engine.", _overhead(run)),
        Section(
            "Relay capacity",
            "32 streams from a mock engine that sends 1,000 chunks per second on each.",
            _relay(run),
        ),
        Section("Start-up", "", _starts(run)),
        Section("The load generator", "", _generator(run.stages)),
    ]
    if old:
        note = (
            f"Ratios new / old, against {old.started.isoformat(timespec='seconds')} "
            f"(commit {old.commit or 'unknown'})."
        )
        found.insert(0, Section("Changes", note, _changes(changes(old, run))))
    return [section for section in found if section.table.rows]


def levels(stages: Sequence[Stage]) -> Table:
    """One row per level: outcomes, TTFT, end to end, ITL, throughput, queue wait."""
    rows = []
    for stage in stages:
        others = Counter(s.outcome for s in stage.samples if not s.ok)
        rows.append(
            (
                f"{stage.users}" + (f" ({stage.rate:g}/s)" if stage.rate else ""),
                str(sum(s.ok for s in stage.samples)),
                ", ".join(f"{n} {name}" for name, n in others.items()) or "none",
                *(_percentiles(stage.samples, metric) for metric in ("ttft", "total", "itl")),
                f"{stage.tokens_per_second:.0f}",
                _percentiles(stage.samples, "queue_wait"),
            )
        )
    head = (
        *("users", "answers", "other outcomes", "TTFT p50 / p95", "end to end p50 / p95", "ITL p50 / p95"),
        *("tokens/s", "queue wait p50 / p95"),
    )
    return Table(head, rows)


def verdicts(judged: Sequence[Verdict]) -> Table:
    """One row per objective, for a terminal."""
    rows = [
        (
            verdict.verdict.upper() if verdict.verdict == "missed" else verdict.verdict,
            verdict.name + (f" [{verdict.why}]" if verdict.why else ""),
            str(verdict.users),
            verdict.measured,
            verdict.bound,
            str(verdict.estimate.count) if verdict.estimate else "0",
        )
        for verdict in judged
    ]
    return Table(("", "objective", "users", "measured (95 % interval)", "limit", "n"), rows)


def capacity(found: Capacity) -> Table:
    """One row per level of a search for the capacity. Times of engines are those of the slowest one."""
    rows = []
    for level in found.levels:
        weakest = level.weakest_verdict
        engines = level.engines.values()
        rows.append(
            (
                f"{level.load:g}",
                level.probability,
                level.weakest,
                weakest.measured,
                weakest.bound,
                str(level.answers),
                f"{level.queue_ms + max((each.queue_ms for each in engines), default=0.0):.0f} ms",
                *(
                    f"{max(figures):.{digits}f} {unit}" if engines else "–"
                    for figures, digits, unit in (
                        ([each.reading_ms for each in engines], 0, "ms"),
                        ([each.step_ms for each in engines], 1, "ms"),
                        ([each.kv_cache * 100 for each in engines], 0, "%"),
                    )
                ),
            )
        )
    head = (
        *(
            found.unit,
            "all kept, probability",
            "weakest objective",
            "measured (95 % interval)",
            "limit",
            "answers",
        ),
        *("queue", "reading prompts", "step", "KV cache"),
    )
    return Table(head, rows)


def _about_capacity(found: Capacity | None) -> tuple[str, Table]:
    if found is None:
        return "", Table((), ())
    notes = [f"{found}, with pauses as developers make them."]
    if found.breaks:
        notes.append(f"What breaks first, at {found.breaks.load:g} {found.unit}: {found.breaks}.")
    if found.stopped:
        notes.append(f"Stopped before the result was certain: {found.stopped}.")
    return " ".join(notes), capacity(found)


def aligned(table: Table) -> str:
    """A table as text for a terminal."""
    lines = [table.head, *table.rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _percentiles(samples: Sequence[Sample], metric: str) -> str:
    times = values(samples, metric)
    if not times:
        return "–"
    return " / ".join(f"{stats.percentile(times, q).value:.0f}" for q in (0.5, 0.95)) + " ms"


def _failures(stages: Sequence[Stage]) -> Table:
    rows = []
    for stage in stages:
        for outcome in sorted({s.outcome for s in stage.samples if not s.ok}):
            found = [s for s in stage.samples if s.outcome == outcome]
            rows.append((f"{stage.label}, {outcome}", str(len(found)), found[0].detail))
    return Table(("", "requests", "details of the first"), rows)


def _kinds(stages: Sequence[Stage]) -> Table:
    rows = []
    for stage in stages:
        for kind in sorted({s.kind for s in stage.samples}):
            samples = stage.of_kinds((kind,))
            ok = [s for s in samples if s.ok]
            rows.append(
                (
                    f"{stage.label}, {kind}",
                    f"{len(ok)} of {len(samples)}",
                    _percentiles(samples, "ttft"),
                    _percentiles(samples, "total"),
                    _median([s.prompt_tokens for s in ok]),
                    _median([s.completion_tokens for s in ok]),
                )
            )
    head = (
        *("", "answers", "TTFT p50 / p95", "end to end p50 / p95"),
        *("prompt tokens, median", "answer tokens, median"),
    )
    return Table(head, rows)


def _sessions(stages: Sequence[Stage]) -> Table:
    rows = []
    for stage in stages:
        names = [s.session.partition("/")[0] for s in stage.samples]
        for name in sorted(set(names) - {""}):
            samples = [s for s, of in zip(stage.samples, names, strict=True) if of == name]
            found = found_again(samples)
            hits, before = map(sum, zip(*found, strict=True)) if found else (0, 0)
            rows.append(
                (
                    f"{stage.label}, {name}",
                    str(len(sessions(samples))),
                    _percentiles(samples, "session"),
                    _percentiles([s for s in samples if s.turn == 0], "ttft"),
                    _percentiles([s for s in samples if s.turn], "ttft"),
                    f"{hits / before:.1%}" if before else "–",
                )
            )
    head = (
        *("", "whole sessions", "end to end, without pauses, p50 / p95"),
        *("TTFT of the first turn p50 / p95", "of later turns p50 / p95", "found again"),
    )
    return Table(head, rows)


def _median(counts: Sequence[int | None]) -> str:
    known = sorted(count for count in counts if count is not None)
    return str(known[len(known) // 2]) if known else "–"


def _overhead(run: Run) -> Table:
    rows = [
        (
            f"{entry['streams']} at once: {metric}",
            f"{figures['direct']:.4g} {figures['unit']}",
            f"{figures['router']:.4g} {figures['unit']}",
            str(Estimate(**figures["ratio"])),
        )
        for entry in run.overhead
        for metric, figures in entry["metrics"].items()
    ]
    return Table(("", "direct", "through the router", "ratio (95 % interval)"), rows)


def _relay(run: Run) -> Table:
    rows = [
        (entry["name"], f"{entry['chunks_per_second']:,.0f}", f"{entry['cpu_ms_per_1000']:.1f} ms")
        for entry in run.relay
    ]
    return Table(("", "chunks per second", "router's CPU for 1,000 chunks"), rows)


def _starts(run: Run) -> Table:
    rows = [(entry["name"], f"{entry['seconds']:.0f} s") for entry in run.starts]
    return Table(("start", "until all models answer"), rows)


def _generator(stages: Sequence[Stage]) -> Table:
    rows = [
        (
            stage.label,
            f"{stage.health.cpu:.0%}",
            f"{stage.health.machine_cpu:.0%}",
            f"{stage.health.lag_p95_ms:.1f} ms",
            f"{stage.health.lag_max_ms:.1f} ms",
            "yes" if stage.health.saturated else "no",
        )
        for stage in stages
    ]
    head = (
        "",
        "of one core",
        "CPU of the machine",
        "event-loop lag, p95",
        "event-loop lag, maximum",
        "saturated",
    )
    return Table(head, rows)


def _changes(found: Sequence[Change]) -> Table:
    rows = [
        (
            change.name,
            f"{change.before:.0f} ms",
            f"{change.after:.0f} ms",
            str(change.ratio),
            change.verdict.upper() if change.verdict == "slower" else change.verdict,
        )
        for change in found
    ]
    return Table(("", "before", "now", "ratio (95 % interval)", "beyond noise"), rows)
