"""The NVIDIA GPUs of this machine, from nvidia-smi.

Not through NVML in this process: a driver that hangs would hang the command, and a subprocess has a timeout.
"""

import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from services.stack.settings import Engine, Settings

_QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits"]


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in bytes."""

    name: str
    total: int
    used: int


def found() -> list[Gpu]:
    """All GPUs; none if there is no driver or it does not answer."""
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    gpus = []
    for line in answer.stdout.splitlines() if answer.returncode == 0 else ():
        name, total, used = (part.strip() for part in line.rsplit(",", 2))
        if total.isdecimal() and used.isdecimal():
            gpus.append(Gpu(name, int(total) * 2**20, int(used) * 2**20))
    return gpus


def of_engine(settings: Settings, engine: Engine) -> list[int]:
    """The numbers of a local engine's GPUs; empty if it may use all.

    While every model has one local engine, all may use all GPUs. With more engines, the first of each model
    share the first GPU, the second ones the second GPU, and so on; an engine with tensor-parallel-size N
    takes N GPUs.
    """
    alike = [other for other in settings.local_engines.values() if other.kind == engine.kind]
    if all(count == 1 for count in _counts(settings)):
        return []
    each = int(settings.values(engine.kind).get("tensor-parallel-size", 1))
    first = alike.index(engine) * each
    return list(range(first, first + each))


def _counts(settings: Settings) -> Iterable[int]:
    return Counter(engine.kind for engine in settings.local_engines.values()).values()
