"""The NVIDIA GPUs of this machine, as its driver's own tool tells."""

import subprocess
from dataclasses import dataclass

_QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits"]


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in bytes."""

    name: str
    total: int
    used: int


def found() -> list[Gpu]:
    """All GPUs; none when there is no driver, or it does not answer."""
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
