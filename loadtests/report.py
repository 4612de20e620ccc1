"""Turns results into report.html for people, report.md for a CI summary, results.json for programs."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests import compare, results, slo, stats
from loadtests.stage import Stage
from loadtests.stats import Estimate

STYLE = """\
:root { color-scheme: light dark; --page: #fcfcfb; --ink: #1c1e21; --soft: #5b6068; --grid: #d4d7dc;
        --card: #ffffff; --met: #1f7a3d; --missed: #c0262d; --none: #8a6100; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181b; --ink: #e8e9eb; --soft: #a2a8b0; --grid: #3a3f46; --card: #1e2125;
          --met: #58c07c; --missed: #ff7b78; --none: #e0b040; } }
body { background: var(--page); color: var(--ink); margin: 0 auto; max-width: 72rem; padding: 1.5rem;
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p.meta, .soft { color: var(--soft); margin: .2rem 0; }
.cards, .figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); }
.figures { grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); }
.card, figure { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; padding: 1rem;
  margin: 0; }
.card { border-left-width: 5px; } .card b { font-size: 1.5rem; display: block; }
.card.met { border-left-color: var(--met); } .card.missed { border-left-color: var(--missed); }
.card.none { border-left-color: var(--none); }
.met > .state { color: var(--met); } .missed > .state { color: var(--missed); }
.none > .state { color: var(--none); }
figcaption { font-weight: 600; margin-bottom: .4rem; } figure svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .7rem; vertical-align: top;
  border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; } thead th { color: var(--soft); font-weight: 600; }
td.met { color: var(--met); } td.none { color: var(--none); }
td.missed { color: var(--missed); font-weight: 600; }
"""

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def write(folder: Path, data: dict[str, Any], old: dict[str, Any] | None = None) -> None:
    """Write the three files into `folder`; with `old` results, what changed since then as well."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")
    (folder / "report.md").write_text(markdown(data, old))
    (folder / "report.html").write_text(page(data, old))


# -- what is shown, in both forms


def _verdicts(data: dict[str, Any], key: str = "verdicts") -> list[tuple[dict[str, Any], str, str, str]]:
    """Each verdict with its measured value and limit in words, and its class."""
    rows = []
    for entry in data[key]:
        unit = entry["unit"]
        limit = f"{'≥' if entry['lower_bound'] else '≤'} {slo.figure(entry['limit'], unit)}"
        estimate = Estimate(**entry["estimate"]) if entry["estimate"] else None
        measured = slo.described(estimate, unit) if estimate else "–"
        rows.append((entry, measured, limit, entry["verdict"].replace("no verdict", "none")))
    return rows


def level_table(stages: Sequence[Stage]) -> Table:
    """One row a level: outcomes, TTFT, end to end, ITL, throughput, queue wait."""
    head = ("users", "answers", "other outcomes", "TTFT p50 / p95", "end to end p50 / p95", "ITL p50 / p95")
    rows = []
    for stage in stages:
        others = Counter(s.outcome for s in stage.samples if not s.ok)
        rows.append(
            (
                f"{stage.users}" + (f" ({stage.rate:g}/s)" if stage.rate else ""),
                str(sum(s.ok for s in stage.samples)),
                ", ".join(f"{n} {name}" for name, n in others.items()) or "none",
                *(_pair(stage, metric) for metric in ("ttft", "total", "itl")),
                f"{stage.tokens_per_second:.0f}",
                _pair(stage, "queue_wait"),
            )
        )
    return (*head, "tokens/s", "queue wait p50 / p95"), rows


def _pair(stage: Stage, metric: str) -> str:
    times = slo.values(stage.samples, metric)
    if not times:
        return "–"
    return " / ".join(f"{stats.percentile(times, q).value:.0f}" for q in (0.5, 0.95)) + " ms"


def failure_table(stages: Sequence[Stage]) -> Table:
    """What was no whole answer, by level and outcome, with what the first one said."""
    rows = []
    for stage in stages:
        for outcome in sorted({s.outcome for s in stage.samples if not s.ok}):
            found = [s for s in stage.samples if s.outcome == outcome]
            rows.append((f"{stage.label}, {outcome}", str(len(found)), found[0].detail))
    return ("", "requests", "the first said"), rows


def kind_table(stages: Sequence[Stage]) -> Table:
    """One row for each level and kind of request."""
    rows = []
    for stage in stages:
        for kind in sorted({s.kind for s in stage.samples}):
            part = Stage(stage.users, stage.rate, stage.seconds, [s for s in stage.samples if s.kind == kind])
            ok = [s for s in part.samples if s.ok]
            prompt = [s.prompt_tokens for s in ok if s.prompt_tokens is not None]
            answer = [s.completion_tokens for s in ok if s.completion_tokens is not None]
            rows.append(
                (
                    f"{stage.label}, {kind}",
                    f"{len(ok)} of {len(part.samples)}",
                    _pair(part, "ttft"),
                    _pair(part, "total"),
                    f"{sorted(prompt)[len(prompt) // 2]}" if prompt else "–",
                    f"{sorted(answer)[len(answer) // 2]}" if answer else "–",
                )
            )
    head = (
        "",
        "answers",
        "TTFT p50 / p95",
        "end to end p50 / p95",
        "prompt tokens, median",
        "answer tokens, median",
    )
    return head, rows


def generator_table(stages: Sequence[Stage]) -> Table:
    """How busy the load generator was at each level."""
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
    head = ("", "of one core", "machine's CPU in use", "woke up late, p95", "at most", "saturated")
    return head, rows


def overhead_table(data: dict[str, Any]) -> Table | None:
    """Direct and through the router, side by side."""
    if not data.get("overhead"):
        return None
    rows = []
    for entry in data["overhead"]:
        for metric, figures in entry["metrics"].items():
            name = f"{entry['streams']} at once: {metric}"
            rows.append(
                (
                    name,
                    f"{figures['direct']:.4g} {figures['unit']}",
                    f"{figures['router']:.4g} {figures['unit']}",
                    str(Estimate(**figures["ratio"])),
                )
            )
    return ("", "direct", "through the router", "ratio (95 % interval)"), rows


def relay_table(data: dict[str, Any]) -> Table | None:
    """Chunks a second that the router relays from an engine that is no bottleneck."""
    if not data.get("relay"):
        return None
    rows = [
        (entry["name"], f"{entry['chunks_per_second']:,.0f}", f"{entry['cpu_ms_per_1000']:.1f} ms")
        for entry in data["relay"]
    ]
    return ("", "chunks a second", "router's CPU for 1,000 chunks"), rows


def start_table(data: dict[str, Any]) -> Table | None:
    """Seconds from ./run up to ready."""
    if not data.get("starts"):
        return None
    rows = [(entry["name"], f"{entry['seconds']:.0f} s") for entry in data["starts"]]
    return ("start", "until all models answer"), rows


def _sections(data: dict[str, Any], old: dict[str, Any] | None) -> list[tuple[str, str, Table]]:
    stages = results.stages_of(data)
    found = [
        ("Levels of load", "", level_table(stages)),
        ("What was no answer", "", failure_table(stages)),
        ("By kind of request", "", kind_table(stages)),
        ("What the router adds", "Measured in turns, on the same engine.", overhead_table(data)),
        (
            "Relay capacity",
            "32 streams of a mock engine that sends each 1,000 chunks a second.",
            relay_table(data),
        ),
        ("Start", "", start_table(data)),
        ("The load generator", "", generator_table(stages)),
    ]
    if old:
        note = f"Ratios new / old, against {old['started']} (commit {old['commit'] or 'unknown'})."
        found.insert(0, ("Compared", note, compare.table(compare.changes(old, data))))
    return [(title, note, table) for title, note, table in found if table and table[1]]


def summary(stages: Sequence[Stage]) -> str:
    """The levels as text for a terminal."""
    head, rows = level_table(stages)
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _meta(data: dict[str, Any]) -> list[str]:
    machine = data["machine"]
    hardware = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    if machine["gpus"]:
        hardware += f"; {', '.join(machine['gpus'])}"
    models = ", ".join(f"{alias}: {model}" for alias, model in data["models"].items())
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    return [
        f"{data['started']} to {data['finished']}, commit {data['commit'] or 'unknown'}",
        f"suite {data['suite']}, profile {data['profile']}, seed {data['seed']}",
        hardware,
        models,
        versions,
        *data["notes"],
    ]


# -- Markdown


def markdown(data: dict[str, Any], old: dict[str, Any] | None = None) -> str:
    """The report for a CI summary."""
    marks = {"met": "✅ met", "missed": "❌ missed", "none": "❔ no verdict"}
    parts = ["# Duoserve load test", "", *[f"{line}  " for line in _meta(data)], ""]
    head = ("objective", "", "measured (95 % interval)", "limit", "users", "")
    for title, key in (
        ("The promises", "promises"),
        (f"Objectives of profile {data['profile']}", "verdicts"),
    ):
        rows = [
            (e["name"], marks[state], measured, limit, str(e["users"]), e["why"])
            for e, measured, limit, state in _verdicts(data, key)
        ]
        parts += [f"## {title}", "", _markdown_table((head, rows)), ""]
    for title, note, table in _sections(data, old):
        parts += [f"## {title}", "", *([note, ""] if note else []), _markdown_table(table), ""]
    return "\n".join(parts)


def _markdown_table(table: Table) -> str:
    head, rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# -- HTML


def page(data: dict[str, Any], old: dict[str, Any] | None = None) -> str:
    """The report as one file that needs nothing else."""
    verdicts = _verdicts(data)
    states = {"met": "met", "missed": "missed", "none": "no verdict"}
    cards = "".join(
        f'<div class="card {state}"><span class="state">{states[state]}</span><b>{_text(measured)}</b>'
        f'{_text(entry["name"])}<p class="soft">promised {_text(limit)}; {entry["users"]} users'
        f"{', ' + _text(entry['why']) if entry['why'] else ''}</p></div>"
        for entry, measured, limit, state in _verdicts(data, "promises")
    )
    rows = "".join(
        f"<tr><td>{_text(e['name'])}</td><td class={state}>{states[state]}</td><td>{_text(measured)}</td>"
        f"<td>{_text(limit)}</td><td>{e['users']}</td><td>{_text(e['why'])}</td></tr>"
        for e, measured, limit, state in verdicts
    )
    head = "".join(
        f"<th>{name}</th>" for name in ("objective", "", "measured (95 % interval)", "limit", "users", "")
    )
    sections = "".join(
        f"<h2>{_text(title)}</h2>{f'<p class=soft>{_text(note)}</p>' if note else ''}{_html_table(table)}"
        for title, note, table in _sections(data, old)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Duoserve load test {_text(data["started"])}</title><style>{STYLE}</style></head><body>
<h1>Duoserve load test</h1>{"".join(f'<p class="meta">{_text(line)}</p>' for line in _meta(data))}
<h2>The promises</h2><div class="cards">{cards or "<p>None of the three was measured.</p>"}</div>
<h2>Figures</h2><div class="figures">{"".join(_figures(data, old))}</div>
<h2>Objectives of profile {_text(data["profile"])}</h2>
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
{sections}
<h2>How to read this</h2>
<p class="soft">Times are taken at the client's socket on a monotonic clock. TTFT: from sending a request to
the first delta. ITL: between two tokens. Only whole answers count as latencies; refusals (429, 503), errors
inside a stream, truncated, empty and garbled answers are outcomes of their own. Intervals are 95 % confidence
intervals; without enough requests for one there is no verdict.</p>
</body></html>
"""


def _figures(data: dict[str, Any], old: dict[str, Any] | None) -> list[str]:
    from loadtests import plots  # matplotlib takes its time to load, and only the page needs it

    stages = results.stages_of(data)
    limits = {e["metric"]: e["limit"] for e in data["promises"] if e["unit"] == "ms"}
    kinds = ("completion", "chat", "canary", "burst")
    figures = [
        plots.latency_by_users(stages, "ttft", "Time to first token", kinds, limits.get("ttft")),
        plots.ttft_distribution(stages, kinds, limits.get("ttft")),
    ]
    if any(s.kind == "completion" for stage in stages for s in stage.samples):
        title = "Completion of 50-100 tokens, end to end"
        figures.append(plots.latency_by_users(stages, "total", title, ("completion",), limits.get("total")))
    figures.append(plots.throughput(stages))
    if any(slo.values(stage.samples, "queue_wait") for stage in stages):
        figures.append(plots.latency_by_users(stages, "queue_wait", "Wait in the router's queue", (), None))
    for stage in stages:
        if stage.memory:
            figures += plots.over_time(stage)
    if data.get("overhead"):
        rows = [
            (f"{entry['streams']} at once: {metric}", Estimate(**figures_["ratio"]))
            for entry in data["overhead"]
            for metric, figures_ in entry["metrics"].items()
        ]
        figures.append(plots.ratios(rows, "What the router adds", "through the router / direct"))
    if data.get("relay"):
        relay = [(entry["name"], entry["chunks_per_second"]) for entry in data["relay"]]
        figures.append(plots.bars(relay, "Relay capacity", "chunks a second"))
    if data.get("starts"):
        starts = [(entry["name"], entry["seconds"]) for entry in data["starts"]]
        figures.append(plots.bars(starts, "Start until all models answer", "seconds"))
    if old:
        rows = [(change.name, change.ratio) for change in compare.changes(old, data)]
        figures.insert(0, plots.ratios(rows, "Compared with the earlier run", "new / old"))
    return figures


def _html_table(table: Table) -> str:
    head, rows = table
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value: str) -> str:
    return html.escape(str(value))
