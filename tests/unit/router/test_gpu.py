"""NVIDIA's library is faked: the machines that run these tests have no GPU."""

from types import SimpleNamespace

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from router.gpu import register_gpus


def test_gpus_are_in_the_metrics_and_one_that_cannot_be_read_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def handle(index: int) -> int:
        if index == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda _: SimpleNamespace(used=30e9, total=96e9))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda _: SimpleNamespace(gpu=40))
    registry = CollectorRegistry()
    assert register_gpus(registry)
    lines = [line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    assert lines == [
        'duoserve_gpu_utilisation_ratio{gpu="0"} 0.4',
        'duoserve_gpu_memory_used_bytes{gpu="0"} 3e+10',
        'duoserve_gpu_memory_total_bytes{gpu="0"} 9.6e+10',
    ]


def test_without_a_gpu_there_is_nothing_of_it_in_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    registry = CollectorRegistry()
    assert not register_gpus(registry)
    assert generate_latest(registry) == b""
