"""The page about a soak: README.md and memory.svg."""

import os
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from loadtests.report import machine
from tests.soak.watch import SERVICES, Life

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")


@dataclass
class Fault:
    """What was broken, from when until the service answered again, in seconds since the beginning."""

    what: str
    began: float
    back: float = float("inf")
    # Of the requests meanwhile, how many had which outcome.
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Check:
    """Something that must hold: what was measured, and what is allowed, in words."""

    what: str
    measured: str
    allowed: str
    holds: bool


@dataclass
class Soak:
    """Everything that the page says. Durations are in seconds."""

    seconds: float
    every: float
    clients: int
    requests: int = 0
    faults: list[Fault] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    holdings: dict[str, tuple[Counter[str], Counter[str]]] = field(default_factory=dict)


def write(folder: Path, soak: Soak) -> None:
    """Write the page into `folder`, which is created."""
    folder.mkdir(parents=True)
    _draw(folder / "memory.svg", soak)
    (folder / "README.md").write_text("\n".join(_page(soak)) + "\n")


def _page(soak: Soak) -> Iterator[str]:
    hardware = machine.hardware()
    failed = sum(not check.holds for check in soak.checks)
    yield f"# Soak, {datetime.now(UTC):%Y-%m-%d}: {soak.seconds / 60:.0f} minutes with faults\n"
    given = {name: os.environ[name] for name in ("SOAK_SECONDS", "SOAK_EVERY") if name in os.environ}
    command = shlex.join([*(f"{name}={value}" for name, value in given.items()), "./run", "test-soak"])
    yield textwrap.fill(
        f"`{command}`, commit {machine.commit()}, on {hardware['cores']} cores of an {hardware['cpu']} "
        f"({', '.join(_flags())}) with {hardware['memory_gb']} GB. The real service in the `cpu` profile, "
        f"started by `./run up`; {soak.clients} clients in a closed loop and somebody at the chat app, on "
        f"the same cores; a fault every {soak.every:g} s. The clients sent {soak.requests:,} requests.",
        width=118,
    )
    yield f"\n**{'Everything holds.' if not failed else f'{failed} of {len(soak.checks)} do not hold.'}**\n"
    yield from _table(
        ("", "measured", "allowed", ""),
        [
            (check.what, check.measured, check.allowed, "" if check.holds else "**no**")
            for check in soak.checks
        ],
    )
    yield "## Faults\n"
    yield "*Back* is when every model is ready and has answered a request in full.\n"
    yield from _table(
        ("minute", "fault", "back after", "requests meanwhile"),
        [
            (
                f"{fault.began / 60:.0f}",
                fault.what,
                f"{fault.back - fault.began:.0f} s",
                _counts(fault.outcomes),
            )
            for fault in soak.faults
        ],
    )
    yield "## Memory\n"
    yield "Without what files back, which changes with every other process that maps them.\n"
    yield "![Memory of each service over time](memory.svg)\n"
    yield "## Requests\n"
    yield from _table(
        ("kind", "outcomes"), [(kind, _counts(outcomes)) for kind, outcomes in sorted(soak.kinds.items())]
    )
    yield "## Held when idle, at the start and at the end\n"
    kinds = ("processes", "threads", "descriptors", "sockets")
    yield from _table(
        ("", *kinds),
        [
            (name, *(f"{before[kind]} → {after[kind]}" for kind in kinds))
            for name, (before, after) in soak.holdings.items()
        ],
    )
    yield "## Notes\n"
    for note in soak.notes:
        yield textwrap.fill(note, width=118, initial_indent="- ", subsequent_indent="  ")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common()) or "–"


def _flags() -> list[str]:
    found = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    there = set(found[1].split()) if found else set()
    return [flag for flag in _FLAGS if flag in there]


def _draw(path: Path, soak: Soak) -> None:
    """A line for each life of each service, one below the other; faults are numbered."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "duoserve", "font.size": 9}):
        figure, axes = plt.subplots(
            len(SERVICES), 1, sharex=True, figsize=(8, 1.6 * len(SERVICES)), layout="constrained"
        )
        for service, each in zip(SERVICES, axes, strict=True):
            _draw_service(each, service, soak)
        axes[-1].set_xlabel("minutes; dashed: a fault")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


def _draw_service(axes: Any, service: str, soak: Soak) -> None:
    for life in soak.lives:
        if life.service == service:
            minutes, sizes = zip(*((at / 60, size) for at, size in life.readings), strict=True)
            axes.plot(minutes, sizes, color="#0072b2", linewidth=1)
    for fault in soak.faults:
        axes.axvline(fault.began / 60, color="#c92a2a", linestyle="--", linewidth=0.7)
    axes.set_title(service, loc="left", fontsize=9)
    axes.set_ylabel("MB")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.grid(color="#dddddd", linewidth=0.5)
