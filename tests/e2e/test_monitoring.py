"""Every panel of the dashboard shows something, on real engines, in a real Prometheus."""

import http.server
import itertools
import json
import math
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.monitoring import overview
from tests.support.prometheus import Prometheus
from tests.support.stack import Stack
from tests.support.waiting import wait_for

# As NVIDIA's exporter writes it, for machines without a GPU: memory in MiB, utilisation in percent.
GPU = b"""DCGM_FI_DEV_GPU_UTIL{gpu="0",modelName="NVIDIA RTX PRO 6000 Blackwell"} 41
DCGM_FI_DEV_FB_USED{gpu="0",modelName="NVIDIA RTX PRO 6000 Blackwell"} 88000
DCGM_FI_DEV_FB_FREE{gpu="0",modelName="NVIDIA RTX PRO 6000 Blackwell"} 9000
DCGM_FI_DEV_POWER_USAGE{gpu="0",modelName="NVIDIA RTX PRO 6000 Blackwell"} 310.5
DCGM_FI_DEV_GPU_TEMP{gpu="0",modelName="NVIDIA RTX PRO 6000 Blackwell"} 63
"""


@contextmanager
def gpu_exporter() -> Iterator[str]:
    """Serves `GPU` as /metrics; gives its URL."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(GPU)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def queries() -> dict[str, str]:
    """The PromQL of every panel, by title and legend."""
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"].replace("$__rate_interval", "1m")
        for panel in json.loads(overview.FILE.read_text())["panels"]
        for target in panel.get("targets", [])
    }


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_no_panel_is_empty_on_a_live_stack(stack: Stack, tmp_path: Path) -> None:
    with (
        gpu_exporter() as gpu,
        Prometheus(tmp_path, stack.url, stack.key, stack.engines, gpu=gpu) as prometheus,
        httpx.Client(base_url=stack.url, headers=stack.headers, timeout=120) as client,
    ):
        turns = itertools.count()
        left = queries()

        def all_show() -> bool:
            for model in ("coder", "general"):
                _ask(client, model)
            _take_a_turn(client, next(turns))
            nonlocal left
            left = {
                name: query
                for name, query in queries().items()
                # There is no remote model.
                if "(remote)" not in name and not _shows(prometheus.query(query))
            }
            return not left

        try:
            wait_for(all_show, "every panel shows a number")
        except AssertionError:
            pytest.fail(f"panels without a number: {', '.join(left)}")


def _ask(client: httpx.Client, model: str) -> None:
    """One answer of 50 tokens: what the promise calls a completion."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Count to a hundred."}]}
    body |= {"stream": True, "max_tokens": 50, "min_tokens": 50}
    assert client.post("/v1/chat/completions", json=body).status_code == 200


def _take_a_turn(client: httpx.Client, number: int) -> None:
    """A turn of an agent that changes the start of its prompt each time, which the cache then lacks."""
    turns = [{"role": "system", "content": f"{number} " + "Work with care. " * 150}]
    for each in range(number % 5 + 1):
        turns += [{"role": "user", "content": f"Step {each}"}, {"role": "assistant", "content": "Done."}]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    body: dict[str, Any] = {"model": "coder", "messages": turns[:-1], "tools": [tool], "max_tokens": 2}
    assert client.post("/v1/chat/completions", json=body).status_code == 200


def _shows(series: list[Any]) -> bool:
    return any(math.isfinite(float(one["value"][1])) for one in series)
