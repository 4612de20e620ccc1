"""The router as a real process in front of two staged engines."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[3]
KEY = "q7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa"
SLOTS = 4
WINDOW = 1000
# The coder fills in the middle, the general model does not.
MODELS = {"coder": "Qwen/Qwen2.5-Coder-7B-Instruct", "general": "Qwen/Qwen2.5-14B-Instruct"}
START_SECONDS = 180
Json = dict[str, Any]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(true: Callable[[], bool], seconds: float, what: str) -> float:
    """Seconds until `true` holds; fails the test when it does not within `seconds`."""
    start = time.monotonic()
    while not true():
        if time.monotonic() - start > seconds:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - start


# One client for all that is asked beside the tests' own requests: making one takes longer than asking.
ASK = httpx.Client(verify=False, timeout=5)


class Process:
    """A child process with its output in a file."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                arguments, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        if self.child.poll() is None:
            self.child.send_signal(number)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
        return self.child.wait()


class Engine:
    """A staged engine."""

    def __init__(self, alias: str, folder: Path, window: int = WINDOW) -> None:
        self.alias = alias
        self.window = window
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / f"engine-{alias}.log"
        self.process: Process | None = None

    def start(self, **knobs: Any) -> None:
        arguments = [
            sys.executable,
            "-m",
            "loadtests.staged",
            "--port",
            str(self.port),
            "--model",
            self.alias,
        ]
        for name, value in ({"max_model_len": self.window} | knobs).items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        self.process = Process(arguments, self._log)
        wait_for(self.answers, 30, f"{self.alias} listens")

    def answers(self) -> bool:
        try:
            ASK.get(f"{self.url}/staged")
        except httpx.TransportError:
            return False
        return True

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process:
            self.process.stop(number)

    def set(self, **knobs: Any) -> None:
        ASK.post(f"{self.url}/staged", json=knobs).raise_for_status()

    def reset(self) -> None:
        ASK.delete(f"{self.url}/staged").raise_for_status()

    def state(self) -> Json:
        found: Json = ASK.get(f"{self.url}/staged").json()
        return found

    def requests(self) -> list[Json]:
        found: list[Json] = self.state()["requests"]
        return found


class Service:
    """A router and its two engines."""

    def __init__(self, folder: Path, window: int = WINDOW, **settings: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.engines = {alias: Engine(alias, folder, window) for alias in MODELS}
        self.headers = {"authorization": f"Bearer {KEY}"}
        profile = folder / "profile"
        profile.mkdir(exist_ok=True)
        for alias, model in MODELS.items():
            content = {"model": model, "max-num-seqs": SLOTS, "max-model-len": window}
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

    def start_router(self) -> None:
        self.router = Process([sys.executable, "-m", "router"], self.folder / "router.log", self.environment)
        child = self.router.child
        wait_for(lambda: child.poll() is not None or self.alive(), START_SECONDS, "the router listens")
        assert child.poll() is None, self.log()

    def start(self) -> "Service":
        for engine in self.engines.values():
            engine.start()
        self.start_router()
        self.wait_ready()
        return self

    def stop(self) -> None:
        if self.router:
            self.router.stop()
        for engine in self.engines.values():
            engine.stop()

    def alive(self) -> bool:
        try:
            return ASK.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            return False

    def ready(self) -> dict[str, str]:
        models: Json = ASK.get(f"{self.url}/ready").json()["models"]
        return {alias: status["state"] for alias, status in models.items()}

    def wait_ready(self) -> None:
        wait_for(lambda: set(self.ready().values()) == {"ready"}, 10, "both models are ready")

    def log(self) -> str:
        return (self.folder / "router.log").read_text()

    def records(self) -> list[Json]:
        path = self.folder / "data" / "logs" / "requests.jsonl"
        path.touch()
        return [json.loads(line) for line in path.read_text().splitlines()]

    def record(self, answer: httpx.Response) -> Json:
        """The log's line for an answer, which is written when all of it has been sent."""
        found: list[Json] = []

        def there() -> bool:
            found[:] = [r for r in self.records() if r["request_id"] == answer.headers["x-request-id"]]
            return bool(found)

        wait_for(there, 2, "the request is in the log")
        return found[0]

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
            base_url=self.url, headers=self.headers, timeout=60, limits=limits, verify=False
        )

    def post(self, path: str, body: Json, **headers: str) -> httpx.Response:
        return ASK.post(f"{self.url}{path}", json=body, headers=self.headers | headers, timeout=60)


def chat(content: str = "hi", model: str = "coder", **more: Any) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("router"))
    try:
        yield service.start()
    finally:
        service.stop()


@pytest.fixture
def service(shared: Service) -> Service:
    """The router that tests share, with its engines as they were at the start."""
    for engine in shared.engines.values():
        engine.reset()
    return shared


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Makes services of a test's own, with settings of its own, that it may break."""
    made: list[Service] = []

    def make(**settings: Any) -> Service:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Service(folder, **settings))
        return made[-1]

    try:
        yield make
    finally:
        for service in made:
            service.stop()
