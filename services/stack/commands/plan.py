"""`./run plan`: whether the models fit into the memory of a GPU, and how it is split."""

import re
from collections.abc import Callable
from pathlib import Path

import psutil
from rich.table import Table

from services.stack import gpus, memory
from services.stack.console import console
from services.stack.failure import Failure
from services.stack.memory import GIB, EngineMemory, Plan, gib
from services.stack.settings import Settings, load


def plan(profile: str | None, vram: float | None, write: bool) -> int:
    """Print the plan for `profile`, or for that of the settings; returns 0 when all models fit, else 1.

    Args:
        profile: a folder under config/engines.
        vram: the memory to plan for in GiB, instead of this machine's.
        write: whether to put the suggested split into the profile.

    Raises:
        Failure: the profile, a model or the memory is not known.
    """
    return report(load().with_profile(profile), vram, write)


def report(settings: Settings, vram: float | None, write: bool) -> int:
    """As `plan`, for the profile of `settings`."""
    size, name = _memory_for(settings, vram)
    planned = memory.plan(settings, size)
    if write:
        _write(settings.profile, planned)
        planned = memory.plan(settings, size)
    console.print(f"{settings.profile.name} on {name} ({gib(size)})\n", markup=False)
    console.print(_table(planned))
    problems = planned.problems()
    for problem in problems:
        console.print(f"\nDoes not fit: {problem}.", markup=False)
    if not problems:
        left = size - planned.used
        console.print(f"\nFits: {gib(planned.used)} used, {gib(left)} ({left / size:.0%}) left.")
    _print_suggestion(settings, planned, vram)
    return 1 if problems else 0


def _memory_for(settings: Settings, vram: float | None) -> tuple[int, str]:
    """The bytes to plan for, and where they come from: `vram` GiB, this machine, or the profile's name."""
    if vram is not None:
        return int(vram * GIB), f"{vram:g} GiB"
    if settings.engine == "cpu":
        return psutil.virtual_memory().total, "this machine's memory"
    if found := gpus.found():
        least = min(found, key=lambda gpu: gpu.total)
        return least.total, least.name
    if named := re.search(r"(\d+)gb", settings.profile.name):
        return int(named[1]) * GIB, f"a GPU with {named[1]} GB, as the profile's name says"
    raise Failure("no GPU was found here; say how much memory it has, for example --vram 96.")


def _table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for engine in plan.engines:
        table.add_column(engine.alias, justify="right", overflow="fold")

    def row(name: str, value: Callable[[EngineMemory], str]) -> None:
        table.add_row(name, *map(value, plan.engines))

    row("model", lambda e: e.model.rpartition("/")[2])
    row("weights", lambda e: gib(e.weights))
    row("runtime", lambda e: gib(e.runtime))
    row("activations", lambda e: gib(e.activations))
    if plan.kind == "cuda":
        row("CUDA graphs", lambda e: gib(e.graphs))
    row("KV cache", lambda e: gib(e.kv_cache))
    row("total", lambda e: gib(e.total))
    row("KV cache for each context", lambda e: gib(e.cache.bytes_for(1)) if e.cache.blocks else "-")
    row("tokens in the KV cache", lambda e: f"{e.tokens:,}" if e.cache.blocks else "-")
    row("full contexts", lambda e: f"{e.contexts:.1f} x {e.window:,}" if e.cache.blocks else "-")
    row("users at once x context", lambda e: f"{e.slots} x {e.cache.context_for(e.kv_cache, e.slots):,}")
    if any(engine.offloaded for engine in plan.engines):
        row("KV cache in CPU memory", lambda e: gib(e.offloaded))
    if plan.kind == "cuda":
        row("gpu-memory-utilization", lambda e: f"{e.utilization:g}")
    return table


def _print_suggestion(settings: Settings, plan: Plan, vram: float | None) -> None:
    split = plan.suggestion()
    if any(s.kv_cache < e.cache.bytes_for(1) for e, s in zip(plan.engines, split.values(), strict=True)):
        console.print("No split of this memory gives every model a full context.")
        return
    caches = ", ".join(f"{alias} {_size(s.kv_cache)}" for alias, s in split.items() if s.kv_cache)
    command = f"./run plan --profile {settings.profile.name}{f' --vram {vram:g}' if vram else ''} --write"
    console.print(f"The largest KV caches that fit well: {caches}. {command} sets them.")


def _write(profile: Path, plan: Plan) -> None:
    from ruamel.yaml import YAML  # keeps comments and order

    for engine, split in zip(plan.engines, plan.suggestion().values(), strict=True):
        if split.kv_cache < engine.cache.bytes_for(1):
            raise Failure(
                f"no split of this memory gives {engine.alias} a full context; nothing was written."
            )
    yaml_files = YAML()
    yaml_files.width = 10_000
    yaml_files.preserve_quotes = True
    for alias, split in plan.suggestion().items():
        path = profile / f"{alias}.yaml"
        values = yaml_files.load(path)
        if split.kv_cache:
            values["kv-cache-memory-bytes"] = _size(split.kv_cache)
        if plan.kind == "cuda":
            values["gpu-memory-utilization"] = split.utilization
        with path.open("w") as file:
            yaml_files.dump(values, file)
        console.print(f"Wrote {path}", markup=False)


def _size(size: int) -> str:
    return f"{size // GIB}G" if size % GIB == 0 else f"{size // 2**20}M"
