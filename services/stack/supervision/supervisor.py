"""Starts, watches and stops the services, by means of supervisor (http://supervisord.org).

supervisor restarts services that crash, with back-off, and answers on a socket that only the user can open.
It leaks the children of the processes that it kills, so each service runs in a guard (guard.py).
"""

import contextlib
import hashlib
import http.client
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from dotenv import dotenv_values
from supervisor.xmlrpc import SupervisorTransport

from services.stack import gpus, models, precision
from services.stack.environments import BY_NAME, ROOT
from services.stack.failure import Failure
from services.stack.settings import Settings
from services.stack.supervision.guard import GRACE, end_with_parent
from services.stack.supervision.processes import end, marked, marks

SUPERVISOR = "supervisor"
# Seconds after which a service has started; one that ends sooner is restarted with back-off.
ENGINE_SECONDS, START_SECONDS = 120, 20


@dataclass(frozen=True)
class ServiceState:
    """What supervisor knows of a service: the `pid` of its guard, or its last exit status; `uptime` in s."""

    name: str
    pid: int | None
    exit_status: int
    uptime: float


class Supervisor:
    """The supervisor of the stack with these settings, whether it runs or not."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        digest = hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]
        # Not under `home`: the path of a Unix socket is limited to some 100 characters. Not in a folder that
        # the environment names either: it may end with the login, or differ between two.
        self._folder = Path(f"/tmp/duoserve-{os.getuid()}-{digest}")  # noqa: S108 - made anew, owner only
        self._socket = self._folder / "supervisor.sock"

    def start(self, detached: bool) -> None:
        """Start supervisor and the services; unless `detached`, they end with this process.

        Raises:
            Failure: the folder for its socket cannot be created.
        """
        settings = self.settings
        end(marked(settings.home))  # what a killed supervisor left behind
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            self._folder.mkdir(mode=0o700)
        except OSError as error:
            raise Failure(f"cannot create {self._folder} ({error.strerror}); remove it.") from None
        for folder in (settings.logs, settings.run, settings.cache):
            folder.mkdir(parents=True, exist_ok=True)
        configuration = settings.run / "supervisord.conf"
        configuration.write_text(self._configuration())
        with (settings.logs / f"{SUPERVISOR}.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(configuration)],
                cwd=ROOT,
                env=self._environment() | marks(settings.home, SUPERVISOR),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if detached else lambda: end_with_parent(signal.SIGTERM),
            )

    def running(self) -> bool:
        return self.states() is not None

    def states(self) -> list[ServiceState] | None:
        """The state of each service, or None if supervisor is not running."""
        try:
            answers: Any = self._ask("getAllProcessInfo")
        except (OSError, http.client.HTTPException):
            return None
        by_name = {answer["name"]: answer for answer in answers}
        return [
            ServiceState(
                name,
                by_name[name]["pid"] or None,
                by_name[name]["exitstatus"],
                max(0.0, by_name[name]["now"] - by_name[name]["start"]) if by_name[name]["pid"] else 0.0,
            )
            for name in self.settings.services
        ]

    def stop(self) -> bool:
        """Stop all services and supervisor, and kill what is left; returns whether anything was running."""
        with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Fault):
            self._ask("shutdown")
        deadline = time.monotonic() + GRACE + 10
        supervisors = marked(self.settings.home, SUPERVISOR)
        psutil.wait_procs(supervisors, timeout=max(0.0, deadline - time.monotonic()))
        left = marked(self.settings.home)
        end(left)
        shutil.rmtree(self._folder, ignore_errors=True)
        return bool(supervisors or left)

    def _ask(self, question: str) -> Any:
        # supervisor's transport reports a missing socket file as OSError
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self._socket))
        transport = SupervisorTransport(serverurl=f"unix://{self._socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        return getattr(proxy.supervisor, question)()

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        # The user's proxy is for the internet, and not for the services and engines.
        engines = {urlsplit(engine.url).hostname for engine in self.settings.engines}
        known = [
            inherited.get("NO_PROXY"),
            "127.0.0.1",
            "localhost",
            self.settings.host,
            *sorted(engines, key=str),
        ]
        direct = ",".join(dict.fromkeys(filter(None, known)))
        fixed = {"PYTHONUNBUFFERED": "1", "NO_PROXY": direct, "no_proxy": direct}
        return inherited | self.settings.variables | fixed

    def _configuration(self) -> str:
        sections = [
            "[unix_http_server]",
            f"file={_escaped(self._socket)}",
            "chmod=0700",
            "[supervisord]",
            f"logfile={_escaped(self.settings.logs / SUPERVISOR)}.log",
            "logfile_maxbytes=10MB",
            f"pidfile={_escaped(self.settings.run)}/supervisord.pid",
            f"childlogdir={_escaped(self.settings.logs)}",
            "silent=true",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for priority, name in enumerate(self.settings.services):
            sections += [
                f"[program:{name}]",
                f"command={_escaped(shlex.join(self._guarded(name)))}",
                f"directory={_escaped(ROOT)}",
                f"priority={priority}",
                f"startsecs={ENGINE_SECONDS if name in self.settings.local_engines else START_SECONDS}",
                "startretries=1000000",  # it waits a second longer each time, and never gives up
                "autorestart=true",
                f"stopwaitsecs={GRACE + 5}",
                "stdout_logfile=NONE",  # the guard keeps the log
                f"stderr_logfile={_escaped(self.settings.logs / SUPERVISOR)}.log",
                f"environment={self._engine_environment(name)}",
            ]
        return "\n".join(sections) + "\n"

    def _guarded(self, name: str) -> list[str]:
        command = [sys.executable, "-m", "services.stack.supervision.guard", name]
        if name in self.settings.local_engines:
            lock = self.settings.run / "engine-start.lock"
            command += ["--ready-url", f"{self.settings.url(name)}/health", "--start-lock", str(lock)]
        return [*command, "--", *self._command(name)]

    def _command(self, name: str) -> list[str]:
        engine = self.settings.local_engines.get(name)
        if engine is None:
            return [str(BY_NAME[name].python), "-m", name]
        if self.settings.engine == "cpu":
            serve = [str(BY_NAME["engine"].python), "-m", "services.engine"]
        else:
            serve = [str(BY_NAME["engine-cuda"].folder / "bin" / "vllm"), "serve"]
        configuration = os.path.relpath(self.settings.profile / f"{engine.alias}.yaml", ROOT)
        address = ["--host", "127.0.0.1", "--port", str(self.settings.ports[name])]
        return [*serve, "--config", configuration, *address]

    def _engine_environment(self, name: str) -> str:
        engines = self.settings.local_engines
        if name not in engines:
            return ""
        variables = {
            # vLLM leaves files and sockets behind; this folder is removed when the stack stops.
            "TMPDIR": str(self._folder),
            "VLLM_CACHE_ROOT": str(self.settings.cache / "vllm"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.settings.cache / "inductor"),
        }
        # The models were downloaded before the engines start.
        variables |= {"HF_HOME": str(models.HOME), "HF_HUB_OFFLINE": "1"}
        variables |= {k: v or "" for k, v in dotenv_values(self.settings.profile / "engine.env").items()}
        if self.settings.engine == "cpu":
            variables |= precision.threads(self.settings)
        elif chosen := gpus.of_engine(self.settings, engines[name]):
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, chosen))
        return ",".join(f'{name}="{_escaped(value)}"' for name, value in variables.items())


def _escaped(value: object) -> str:
    return str(value).replace("%", "%%")
