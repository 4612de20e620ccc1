"""The real stack, run by its own commands beside whatever else runs on this machine."""

import json
import os
import queue
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from dotenv import dotenv_values

from tests.support import ROOT
from tests.support.ports import free_port


class Stack:
    """A stack with its own home folder and ports. `settings` go into its `.env`."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.path: Path | None = None  # a folder with programs that come before the machine's own
        coder, general, router, ui = (free_port() for _ in range(4))
        self.engines = {"coder": f"http://127.0.0.1:{coder}", "general": f"http://127.0.0.1:{general}"}
        host = settings.get("BIND_ADDRESS", "127.0.0.1")
        host = f"[{host}]" if ":" in host else host
        self.url, self.ui_url = f"http://{host}:{router}", f"http://{host}:{ui}"
        ports = {"ROUTER_PORT": str(router), "UI_PORT": str(ui)}
        urls = {"CODER_URL": self.engines["coder"], "GENERAL_URL": self.engines["general"]}
        lines = [f"{name}={value}" for name, value in {**ports, **urls, **settings}.items()]
        home.mkdir(parents=True, exist_ok=True)
        (home / ".env").write_text("\n".join(lines) + "\n")

    def add_embedding(self) -> None:
        """Serve the packaged model for embeddings as well, as docs/models.md turns it on."""
        self.engines["embedding"] = f"http://127.0.0.1:{free_port()}"
        config = yaml.safe_load((ROOT / "config" / "litellm.yaml").read_text())
        parameters = {"model": "hosted_vllm/embedding", "api_base": self.engines["embedding"]}
        config["model_list"].append({"model_name": "embedding", "litellm_params": parameters})
        path = self.home / "litellm.yaml"
        path.write_text(yaml.safe_dump(config))
        with (self.home / ".env").open("a") as settings:
            settings.write(f"LITELLM_CONFIG={path}\n")

    @property
    def key(self) -> str:
        return dotenv_values(self.home / ".env")["LITELLM_MASTER_KEY"] or ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.path}:{os.environ['PATH']}" if self.path else os.environ["PATH"]
        return os.environ | {"DUOSERVE_HOME": str(self.home), "PATH": path}

    def run(self, *arguments: str, timeout: float = 1100) -> subprocess.CompletedProcess[str]:
        """One `./run` command, to its end."""
        return subprocess.run(
            ["./run", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def start(self, *arguments: str) -> "Foreground":
        """One `./run` command, left running."""
        return Foreground(["./run", *arguments], self.environment)

    def status(self) -> Any:
        return json.loads(self.run("status", "--json").stdout)

    def processes(self, service: str | None = None) -> list[psutil.Process]:
        """All processes of the stack, or of one service, vLLM's own children included."""
        found = []
        for process in psutil.process_iter():
            try:
                variables = process.environ()
            except psutil.Error:
                continue
            mark = variables.get("DUOSERVE_SERVICE")
            if variables.get("DUOSERVE_HOME") == str(self.home) and mark and service in (None, mark):
                found.append(process)
        return found

    def cpu_seconds(self, service: str) -> float:
        """Seconds of a core that a service's processes have used so far."""
        times = [process.cpu_times() for process in self.processes(service)]
        return sum(each.user + each.system for each in times)

    def logs(self) -> str:
        """The end of every log, for whoever reads why a test failed."""
        parts = []
        for path in sorted((self.home / "data" / "logs").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-40:]
            parts.append("\n".join([f"----- {path.name}", *lines]))
        return "\n".join(parts)


class Foreground:
    """A running command whose lines can be waited for."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for(self, text: str, timeout: float = 600) -> str:
        """The first line from here on that holds `text`."""
        deadline = time.monotonic() + timeout
        while True:
            line = self._lines.get(timeout=max(0.1, deadline - time.monotonic()))
            assert line is not None, f"ended without saying {text!r}:\n{''.join(self.output)}"
            if text in line:
                return line

    def end(self, timeout: float = 300) -> int:
        """Wait for the command's own end; returns its exit status."""
        return self.process.wait(timeout)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.output.append(line)
            self._lines.put(line)
        self._lines.put(None)
