"""A real Prometheus sees a real alert when an engine is killed, and its end when the engine is back."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.support.prometheus import Prometheus
from tests.support.service import KEY, Service
from tests.support.waiting import wait_for


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_a_killed_engine_is_an_alert_until_it_is_back(service: Service, tmp_path: Path) -> None:
    engines = {alias: engine.url for alias, engine in service.engines.items()}
    with Prometheus(tmp_path, service.url, KEY, engines) as prometheus:
        assert not {"DuoserveModelDown", "DuoserveEngineDown"} & set(prometheus.firing())
        service.engines["coder"].stop(signal.SIGKILL)
        try:
            wait_for(lambda: "DuoserveModelDown" in prometheus.firing(), "the alert fires")
            assert prometheus.firing()["DuoserveModelDown"]["alias"] == "coder"
            wait_for(lambda: "DuoserveEngineDown" in prometheus.firing(), "the engine's alert fires")
        finally:
            service.engines["coder"].start()
            service.wait_ready()
        wait_for(
            lambda: not {"DuoserveModelDown", "DuoserveEngineDown"} & set(prometheus.firing()),
            "the alerts end",
        )
