"""The report's figures, as SVG that takes its colours for text and lines from the page (light and dark)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from cycler import cycler

mpl.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from loadtests import stats
from loadtests.slo import values
from loadtests.stage import Stage

# Apart from each other for colour-blind readers too (Okabe and Ito, 2008), on white and near-black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a7d0a", "#56b4e9")
LIMIT = "#c92a2a"
# Stand-ins that the SVG's text replaces by the page's own colours.
INK, GRID = "#010203", "#040506"

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "duoserve",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLOURS),
}


def _svg(draw: Callable[[Any], None], title: str, says: str) -> str:
    """A figure that `draw` fills; `says` is what it shows, for readers who do not see it."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(GRID, "var(--grid)")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{title}: {says}"', 1)
    return f"<figure><figcaption>{title}</figcaption>{svg}</figure>"


def _levels(stages: Sequence[Stage]) -> tuple[np.ndarray, list[str]]:
    return np.arange(len(stages)), [str(stage.users) for stage in stages]


def _of(stage: Stage, kinds: Sequence[str]) -> list[Any]:
    return [s for s in stage.samples if not kinds or s.kind in kinds]


def latency_by_users(
    stages: Sequence[Stage], metric: str, title: str, kinds: Sequence[str], limit: float | None
) -> str:
    """Median and p95 of a metric at each number of users, with 95 % intervals."""
    places, names = _levels(stages)
    said: list[str] = []

    def draw(axes: Any) -> None:
        for offset, (quantile, label) in enumerate(((0.5, "median"), (0.95, "p95"))):
            points = [
                (place + 0.08 * (offset - 0.5), stats.percentile(times, quantile))
                for place, stage in zip(places, stages, strict=True)
                if (times := values(_of(stage, kinds), metric))
            ]
            if not points:
                continue
            middle = [estimate.value for _, estimate in points]
            below = [e.value - (e.low if e.low is not None else e.value) for _, e in points]
            above = [(e.high if e.high is not None else e.value) - e.value for _, e in points]
            axes.errorbar([x for x, _ in points], middle, (below, above), marker="o", capsize=3, label=label)
            said.append(f"{label} " + ", ".join(f"{value:.0f}" for value in middle) + " ms")
        if limit is not None:
            axes.axhline(limit, color=LIMIT, linestyle="--", linewidth=1.2, label=f"limit {limit:g} ms")
        axes.set_xticks(places, names)
        axes.set_xlabel("users at once")
        axes.set_ylabel("milliseconds")
        axes.set_ylim(bottom=0)
        axes.legend()

    figure = _svg(draw, title, "…")
    return figure.replace("…", f"{'; '.join(said)} at {', '.join(names)} users", 1)


def ttft_distribution(stages: Sequence[Stage], kinds: Sequence[str], limit: float | None) -> str:
    """What share of requests had its first token within a time, one line for each number of users."""

    def draw(axes: Any) -> None:
        for stage in stages:
            if times := sorted(values(_of(stage, kinds), "ttft")):
                shares = np.arange(1, len(times) + 1) / len(times) * 100
                axes.step(times, shares, where="post", label=stage.label)
        if limit is not None:
            axes.axvline(limit, color=LIMIT, linestyle="--", linewidth=1.2, label=f"limit {limit:g} ms")
        axes.axhline(95, color=GRID, linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        axes.set_xlabel("time to first token, milliseconds (logarithmic)")
        axes.set_ylabel("% of requests")
        axes.set_ylim(0, 101)
        axes.legend(fontsize=9)

    return _svg(draw, "Time to first token: how many requests had it by when", "one line per number of users")


def over_time(stage: Stage) -> list[str]:
    """Latency and memory of a long stage as it went on."""
    began = min((s.started for s in stage.samples), default=0.0)
    ok = [s for s in stage.samples if s.ok and s.ttft is not None and s.total is not None]

    def latency(axes: Any) -> None:
        minutes = [(s.started - began) / 60 for s in ok]
        axes.plot(minutes, [s.total for s in ok], ".", markersize=3, label="end to end")
        axes.plot(minutes, [s.ttft for s in ok], ".", markersize=3, label="TTFT")
        axes.set_xlabel("minutes")
        axes.set_ylabel("milliseconds")
        axes.set_yscale("log")
        axes.legend()

    def memory(axes: Any) -> None:
        for name, seen in stage.memory.items():
            axes.plot([at / 60 for at, _ in seen], [mb for _, mb in seen], label=name)
        axes.set_xlabel("minutes")
        axes.set_ylabel("megabytes")
        axes.set_ylim(bottom=0)
        axes.legend()

    return [
        _svg(latency, "Latency over time", f"{len(ok)} answers"),
        _svg(memory, "Memory over time", ", ".join(stage.memory)),
    ]


def throughput(stages: Sequence[Stage]) -> str:
    """Tokens a second over all users, at each number of users."""
    places, names = _levels(stages)
    heights = [stage.tokens_per_second for stage in stages]

    def draw(axes: Any) -> None:
        bars = axes.bar(places, heights, width=0.6)
        axes.bar_label(bars, fmt="%.0f", padding=2)
        axes.set_xticks(places, names)
        axes.set_xlabel("users at once")
        axes.set_ylabel("tokens a second, all users")
        axes.grid(axis="x", visible=False)

    said = ", ".join(f"{h:.0f}" for h in heights)
    return _svg(draw, "Throughput", f"{said} tokens a second at {', '.join(names)} users")


def ratios(rows: Sequence[tuple[str, stats.Estimate]], title: str, axis: str) -> str:
    """Ratios with their intervals, one line each, around 1."""

    def draw(axes: Any) -> None:
        for place, (_, estimate) in enumerate(rows):
            low = estimate.value - (estimate.low if estimate.low is not None else estimate.value)
            high = (estimate.high if estimate.high is not None else estimate.value) - estimate.value
            axes.errorbar(
                estimate.value, place, xerr=[[low], [high]], marker="o", capsize=4, color=COLOURS[0]
            )
            axes.annotate(
                f"{estimate.value:.2f}",
                (estimate.value, place),
                textcoords="offset points",
                xytext=(0, 7),
                ha="center",
                fontsize=9,
            )
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(axis)
        axes.grid(axis="y", visible=False)

    said = "; ".join(f"{name} {estimate.value:.2f}" for name, estimate in rows)
    return _svg(draw, title, said)


def bars(rows: Sequence[tuple[str, float]], title: str, axis: str) -> str:
    """Named amounts side by side."""

    def draw(axes: Any) -> None:
        places = range(len(rows))
        drawn = axes.barh(places, [value for _, value in rows], height=0.55)
        axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
        axes.set_yticks(places, [name for name, _ in rows])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel(axis)
        axes.grid(axis="y", visible=False)

    return _svg(draw, title, "; ".join(f"{name} {value:,.0f}" for name, value in rows))
