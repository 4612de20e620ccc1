"""The figures of a report, as SVG that takes the colours of text and lines from the page (light and dark)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from cycler import cycler
from markupsafe import Markup, escape

mpl.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from loadtests.judge import stats
from loadtests.judge.capacity import Capacity
from loadtests.measure.sample import values
from loadtests.measure.stage import Stage

# Distinguishable for colour-blind readers too (Okabe and Ito, 2008), on white and near-black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a7d0a", "#56b4e9")
LIMIT = "#c92a2a"
# Placeholders that are replaced with the colours of the page.
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


class Figure(NamedTuple):
    """An SVG image and its title."""

    title: str
    svg: Markup


def _figure(draw: Callable[[Any], None], title: str, description: str) -> Figure:
    """A figure that `draw` fills; `description` is for readers who do not see it."""
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
    label = escape(f"{title}: {description}")
    return Figure(title, Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)))  # noqa: S704 - matplotlib escapes text


def _levels(stages: Sequence[Stage]) -> tuple[np.ndarray, list[str]]:
    return np.arange(len(stages)), [
        f"{stage.rate:g}/s" if stage.rate else str(stage.users) for stage in stages
    ]


def _errors(estimates: Sequence[stats.Estimate]) -> tuple[list[float], list[float]]:
    """How far the intervals reach below and above the values; 0 where there is no interval."""
    return (
        [e.value - e.low if e.low is not None else 0.0 for e in estimates],
        [e.high - e.value if e.high is not None else 0.0 for e in estimates],
    )


def latency_by_users(
    stages: Sequence[Stage], metric: str, title: str, kinds: tuple[str, ...], limit: float | None
) -> Figure:
    """Median and p95 of a metric at each number of users, with 95 % intervals."""
    places, names = _levels(stages)
    lines = {
        label: [
            (place + offset, stats.percentile(times, quantile))
            for place, stage in zip(places, stages, strict=True)
            if (times := values(stage.of_kinds(kinds), metric))
        ]
        for label, quantile, offset in (("median", 0.5, -0.04), ("p95", 0.95, 0.04))
    }

    def draw(axes: Any) -> None:
        for label, points in lines.items():
            if not points:
                continue
            estimates = [estimate for _, estimate in points]
            middle = [estimate.value for estimate in estimates]
            shifted = [place for place, _ in points]
            axes.errorbar(shifted, middle, _errors(estimates), marker="o", capsize=3, label=label)
        if limit is not None:
            axes.axhline(limit, color=LIMIT, linestyle="--", linewidth=1.2, label=f"limit {limit:g} ms")
        axes.set_xticks(places, names)
        axes.set_xlabel("users")
        axes.set_ylabel("milliseconds")
        axes.set_ylim(bottom=0)
        axes.legend()

    measured = "; ".join(
        f"{label} {', '.join(f'{estimate.value:.0f}' for _, estimate in points)} ms"
        for label, points in lines.items()
        if points
    )
    return _figure(draw, title, f"{measured} at {', '.join(names)} users")


def ttft_distribution(stages: Sequence[Stage], kinds: tuple[str, ...], limit: float | None) -> Figure:
    """The share of requests with a first token within a time, one line for each number of users."""

    def draw(axes: Any) -> None:
        for stage in stages:
            if times := sorted(values(stage.of_kinds(kinds), "ttft")):
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

    return _figure(draw, "Time to first token: share of requests", "one line per number of users")


def over_time(stage: Stage) -> list[Figure]:
    """Latency and memory in the course of a long stage."""
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
        for name, readings in stage.memory.items():
            axes.plot([at / 60 for at, _ in readings], [mb for _, mb in readings], label=name)
        axes.set_xlabel("minutes")
        axes.set_ylabel("megabytes")
        axes.set_ylim(bottom=0)
        axes.legend()

    return [
        _figure(latency, "Latency over time", f"{len(ok)} answers"),
        _figure(memory, "Memory over time", ", ".join(stage.memory)),
    ]


def capacity(found: Capacity) -> Figure:
    """Each objective's figure as a share of its limit, at each load, and where the first one is missed."""
    lines: dict[str, list[tuple[float, stats.Estimate]]] = {}
    for level in found.levels:
        for verdict in level.verdicts:
            estimate = verdict.estimate
            # A minimum or a share is no matter of the load in the way that times are.
            if estimate and verdict.limit and not verdict.lower_bound and verdict.unit != "%":
                shares = (
                    None if each is None else each / verdict.limit
                    for each in (estimate.value, estimate.low, estimate.high)
                )
                value, low, high = shares
                lines.setdefault(verdict.name, []).append(
                    (level.load, stats.Estimate(value or 0.0, low, high, estimate.count))
                )

    def draw(axes: Any) -> None:
        for name, points in lines.items():
            estimates = [estimate for _, estimate in points]
            middle = [estimate.value for estimate in estimates]
            loads = [load for load, _ in points]
            axes.errorbar(loads, middle, _errors(estimates), marker="o", markersize=4, capsize=3, label=name)
        axes.axhline(1, color=LIMIT, linestyle="--", linewidth=1.2, label="limit")
        end = found.levels[-1].load if found.high is None else found.high
        axes.axvspan(found.low - 0.02 * end, end * 1.02, color=COLOURS[2], alpha=0.15, linewidth=0)
        axes.axvline(found.value, color=COLOURS[2], linewidth=1.6, label=f"capacity: {found.value:g}")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        axes.set_xlim(left=0)
        axes.set_xlabel(found.unit)
        axes.set_ylabel("measured / limit (logarithmic)")
        axes.legend(fontsize=8)

    return _figure(draw, "Capacity", str(found))


def throughput(stages: Sequence[Stage]) -> Figure:
    """Tokens per second over all users, at each number of users."""
    places, names = _levels(stages)
    heights = [stage.tokens_per_second for stage in stages]

    def draw(axes: Any) -> None:
        bars = axes.bar(places, heights, width=0.6)
        axes.bar_label(bars, fmt="%.0f", padding=2)
        axes.set_xticks(places, names)
        axes.set_xlabel("users")
        axes.set_ylabel("tokens per second, all users")
        axes.grid(axis="x", visible=False)

    measured = ", ".join(f"{height:.0f}" for height in heights)
    return _figure(draw, "Throughput", f"{measured} tokens per second at {', '.join(names)} users")


def ratios(rows: Sequence[tuple[str, stats.Estimate]], title: str, axis: str) -> Figure:
    """Ratios with their intervals, one line each, around 1."""

    def draw(axes: Any) -> None:
        for place, (_, estimate) in enumerate(rows):
            errors = _errors([estimate])
            axes.errorbar(estimate.value, place, xerr=errors, marker="o", capsize=4, color=COLOURS[0])
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

    return _figure(draw, title, "; ".join(f"{name} {estimate.value:.2f}" for name, estimate in rows))


def bars(rows: Sequence[tuple[str, float]], title: str, axis: str) -> Figure:
    """Named amounts, side by side."""

    def draw(axes: Any) -> None:
        places = range(len(rows))
        drawn = axes.barh(places, [value for _, value in rows], height=0.55)
        axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
        axes.set_yticks(places, [name for name, _ in rows])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel(axis)
        axes.grid(axis="y", visible=False)

    return _figure(draw, title, "; ".join(f"{name} {value:,.0f}" for name, value in rows))
