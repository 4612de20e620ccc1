"""Metrics of the GPUs, if there are any."""

from collections.abc import Iterator

import pynvml
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry


def register_gpus(registry: CollectorRegistry) -> bool:
    """Add the GPU gauges to `registry`. Returns whether this machine has NVIDIA's driver and a GPU."""
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return False
    if count:
        registry.register(_Gpus(count))
    return bool(count)


class _Gpus(Collector):
    def __init__(self, count: int) -> None:
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        use = GaugeMetricFamily(
            "duoserve_gpu_utilisation_ratio", "Share of the time in which a kernel ran", labels=["gpu"]
        )
        used = GaugeMetricFamily("duoserve_gpu_memory_used_bytes", "Memory in use", labels=["gpu"])
        total = GaugeMetricFamily("duoserve_gpu_memory_total_bytes", "Total memory", labels=["gpu"])
        for index in range(self._count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                use.add_metric([str(index)], pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
            except pynvml.NVMLError:
                continue  # a GPU that cannot be read has no samples
            used.add_metric([str(index)], memory.used)
            total.add_metric([str(index)], memory.total)
        yield from (use, used, total)
