"""A vLLM server of one configuration, for measuring."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

START_SECONDS = 300


@dataclass(frozen=True)
class Variant:
    """One configuration: its name, vLLM's settings and the environment."""

    name: str
    settings: dict[str, Any]
    environment: dict[str, str]


def read(paths: list[Path]) -> list[Variant]:
    """The reference and its variants from their files.

    Raises:
        ValueError: a file is not a mapping.
    """
    variants: list[Variant] = []
    for path in paths:
        own = yaml.safe_load(path.read_text()) or {}
        if not isinstance(own, dict):
            raise ValueError(f"{path} is not a mapping of vLLM's settings")
        environment = {name: str(value) for name, value in own.pop("environment", {}).items()}
        if not variants:
            file = path.with_name("engine.env")
            lines = file.read_text().splitlines() if file.exists() else []
            assignments = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
            environment = dict(assignments) | environment
            variants.append(Variant(path.stem, own, environment))
        else:
            base = variants[0]
            variants.append(Variant(path.stem, base.settings | own, base.environment | environment))
    return variants


class Engine:
    """A running vLLM server, on one core."""

    def __init__(self, variant: Variant, core: int, folder: Path) -> None:
        self.variant = variant
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        configuration = folder / f"{self.port}.yaml"
        configuration.write_text(yaml.safe_dump(variant.settings))
        self.log = folder / f"{self.port}.log"
        command = [str(Path(sys.executable).with_name("vllm")), "serve", "--config", str(configuration)]
        threads = {"VLLM_CPU_OMP_THREADS_BIND": str(core), "OMP_NUM_THREADS": "1"}
        variables = os.environ | threads | variant.environment
        variables = {name: value.replace("{core}", str(core)) for name, value in variables.items()}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self.port)],
                env=variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", timeout=600, limits=httpx.Limits(max_connections=None)
        )

    async def ready(self) -> float:
        """Wait until it serves; returns the seconds since this was called.

        Raises:
            RuntimeError: it ended, or took too long.
        """
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.HTTPError):
                if (await self.client.get("/health")).is_success:
                    return time.monotonic() - began
            await asyncio.sleep(0.1)
        raise RuntimeError(f"{self.variant.name} does not start:\n{self.log.read_text()[-3000:]}")

    async def stop(self) -> None:
        """End it and all of its processes."""
        await self.client.aclose()
        processes = self.tree()
        self.process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(processes, timeout=10)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def tree(self) -> list[psutil.Process]:
        """Its processes."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def memory(self) -> float:
        """Proportional set size of its processes, MB."""
        return sum(process.memory_full_info().pss for process in self.tree()) / 1e6

    @property
    def model(self) -> str:
        """The name it serves."""
        return str(self.variant.settings["served-model-name"][0])

    async def stream(self, prompt: list[int], tokens: int) -> list[float]:
        """Complete `prompt` with exactly `tokens` tokens; returns when it began and when each came, s."""
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "stream": True,
            "ignore_eos": True,
        }
        times = [time.monotonic()]
        async with self.client.stream("POST", "/v1/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    times.append(time.monotonic())
        return times

    async def complete(self, prompt: str | list[int], tokens: int, **more: Any) -> dict[str, Any]:
        """Complete `prompt` greedily; returns the choice."""
        body = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, **more}
        response = await self.client.post("/v1/completions", json=body)
        response.raise_for_status()
        return dict(response.json()["choices"][0])


@contextlib.asynccontextmanager
async def serving(variant: Variant, cores: list[int], folder: Path) -> AsyncIterator[list[Engine]]:
    """Engines of this variant, one on each of the cores, started one after the other as the service does."""
    engines: list[Engine] = []
    try:
        for core in cores:
            engines.append(Engine(variant, core, folder))
            await engines[-1].ready()
        yield engines
    finally:
        for engine in engines:
            await engine.stop()
