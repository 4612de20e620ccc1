"""The router as a real process in front of two mock engines."""

import os
import signal
import sys
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import yaml
from dotenv import dotenv_values

from mock_engine import MockEngine
from tests.support import ROOT
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.request_log import records
from tests.support.waiting import PATIENCE, wait_for

KEY = "q7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa"
SLOTS = 4
WINDOW = 1000
# The coder fills in the middle, the general model does not.
MODELS = {"coder": "Qwen/Qwen2.5-Coder-7B-Instruct", "general": "Qwen/Qwen2.5-14B-Instruct"}
_GRAMMARS = {"structured-outputs-config": {"backend": "xgrammar"}}
Json = dict[str, Any]

# One client for all that is asked beside the tests' own requests: making one takes longer than asking.
ASK = httpx.Client(verify=False, timeout=PATIENCE)


class Service:
    """A router and its two engines."""

    def __init__(
        self, folder: Path, window: int = WINDOW, engine_config: Json | None = None, **settings: Any
    ) -> None:
        self.folder = folder
        self.window = window
        self.reasons = "reasoning-parser" in (engine_config or {})
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.engines = {alias: self.engine(alias) for alias in MODELS}
        self.headers = {"authorization": f"Bearer {KEY}"}
        profile = folder / "profile"
        profile.mkdir(exist_ok=True)
        for alias, model in MODELS.items():
            content = (
                {"model": model, "max-num-seqs": SLOTS, "max-model-len": window}
                | _GRAMMARS
                | (engine_config or {})
            )
            (profile / f"{alias}.yaml").write_text(yaml.safe_dump(content))
        example = {name: value or "" for name, value in dotenv_values(ROOT / ".env.example").items()}
        self.environment = (
            dict(os.environ)
            | example
            | {
                "LITELLM_MASTER_KEY": KEY,
                "ROUTER_PORT": str(self.port),
                "PROFILE": str(profile),
                "CODER_URL": self.engines["coder"].url,
                "GENERAL_URL": self.engines["general"].url,
                "DUOSERVE_HOME": str(folder),
            }
            | {name.upper(): str(value) for name, value in settings.items()}
        )
        self.router: Process | None = None

    def engine(self, alias: str, window: int | None = None) -> MockEngine:
        """A mock engine that is not started, with a window or the service's."""
        log, window = self.folder / f"engine-{alias}.log", window or self.window
        return MockEngine(alias, port=free_port(), log=log, max_model_len=window, reasons=self.reasons)

    def start_router(self) -> None:
        self.router = Process([sys.executable, "-m", "router"], self.folder / "router.log", self.environment)
        child = self.router.child
        wait_for(lambda: child.poll() is not None or self.alive(), "the router listens", 600)
        assert child.poll() is None, self.log()

    def start(self) -> "Service":
        for engine in self.engines.values():
            engine.start()
        self.start_router()
        self.wait_ready()
        return self

    def __enter__(self) -> "Service":
        """Started; stopped when the context is left, even if it did not start."""
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process at once: what a test wants to see of an orderly end it looks at itself."""
        if self.router:
            self.router.stop(signal.SIGKILL)
        for engine in self.engines.values():
            engine.stop()

    def alive(self) -> bool:
        return ASK.get(f"{self.url}/health").status_code == 200

    def ready(self) -> dict[str, str]:
        models: Json = ASK.get(f"{self.url}/ready").json()["models"]
        return {alias: status["state"] for alias, status in models.items()}

    def wait_ready(self) -> None:
        wait_for(lambda: set(self.ready().values()) == {"ready"}, "both models are ready")

    def log(self) -> str:
        return (self.folder / "router.log").read_text()

    def records(self) -> list[Json]:
        return records(self.folder)

    def record(self, answer: httpx.Response) -> Json:
        """The log's line for an answer, which is written when all of it has been sent."""
        asked = answer.headers["x-request-id"]
        (found,) = wait_for(
            lambda: [record for record in self.records() if record["request_id"] == asked],
            "the request is in the log",
        )
        return found

    def gauge(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = ASK.get(f"{self.url}/metrics", headers=self.headers).text
        return sum(
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        )

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(
            base_url=self.url, headers=self.headers, timeout=PATIENCE, limits=limits, verify=False
        )

    def round_trip(self, model: str = "coder") -> float:
        """Seconds that a request for one token takes now, the median of five: the measure for other times."""
        quick = chat('mock:{"ttft_ms": 0, "itl_ms": 0, "completion_tokens": 1}', model)
        return median(self.post("/v1/chat/completions", quick).elapsed.total_seconds() for _ in range(5))

    def post(self, path: str, body: Json, **headers: str) -> httpx.Response:
        return ASK.post(f"{self.url}{path}", json=body, headers=self.headers | headers)


def chat(content: str = "hi", model: str = "coder", **more: Any) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}
