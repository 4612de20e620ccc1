"""How much power this machine draws, where it tells: CPUs by RAPL's counters, GPUs by nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from statistics import fmean

POWERCAP = Path("/sys/class/powercap")
_SMI = ("--query-gpu=index,power.draw", "--format=csv,noheader,nounits", "--loop-ms=1000")


class PowerWatch:
    """Measures the mean power of all CPUs and GPUs between start() and stop()."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        """`folder` is the kernel's powercap folder."""
        self._folder = folder

    def start(self) -> None:
        """Begin measuring, in the background."""
        self._smi = None
        if program := shutil.which("nvidia-smi"):
            self._smi = subprocess.Popen(
                [program, *_SMI], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        self._began, self._before = time.monotonic(), self._counters()

    def stop(self) -> float | None:
        """End measuring; returns the watts since start(), None where nothing can be read."""
        seconds = max(1e-9, time.monotonic() - self._began)
        after = self._counters()
        joules = [
            (after[zone][0] - count) % after[zone][1] / 1e6
            for zone, (count, _) in self._before.items()
            if zone in after
        ]
        parts = [sum(joules) / seconds] if joules else []
        if self._smi:
            self._smi.terminate()
            output, _ = self._smi.communicate()
            parts += _gpus(output)
        return sum(parts) if parts else None

    def _counters(self) -> dict[str, tuple[int, int]]:
        """By CPU package: its counter in microjoules, and the value at which that starts again from 0."""
        found = {}
        for zone in self._folder.glob("intel-rapl:*"):  # AMD's CPUs are called so, too
            try:
                # `psys` counts the packages again, and the parts of a package have a second number.
                if zone.name.count(":") == 1 and (zone / "name").read_text().startswith("package"):
                    most = int((zone / "max_energy_range_uj").read_text())
                    found[zone.name] = int((zone / "energy_uj").read_text()), most + 1
            except (OSError, ValueError):
                continue  # most systems let only root read them
        return found


def _gpus(output: str) -> list[float]:
    """The mean power of each GPU, from lines of its index and its watts."""
    readings: dict[str, list[float]] = {}
    for line in output.rpartition("\n")[0].splitlines():  # the last one may be cut off
        index, _, watts = line.partition(", ")
        try:
            readings.setdefault(index, []).append(float(watts))
        except ValueError:
            continue  # [N/A]
    return [fmean(values) for values in readings.values() if values]
