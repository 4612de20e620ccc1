"""Starts, watches and stops the services, by means of supervisor (http://supervisord.org).

supervisor restarts services that crash, with back-off, and answers on a socket that only the user can open.
It leaks the children of the processes that it kills, so each service runs in a guard (guard.py).
"""

import contextlib
import hashlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import xmlrpc.client
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from services.stack import gpus, models, precision, variables
from services.stack.environments import BY_NAME, ROOT
from services.stack.failure import Failure
from services.stack.settings import Settings, write_private
from services.stack.supervision import health
from services.stack.supervision.guard import GRACE, Service, end_with_parent
from services.stack.supervision.processes import end, marked, marks, wait
from services.stack.supervision.watch import Limits

SUPERVISOR = "supervisor"
# The variable with the path of this Python, quoted for supervisor.
_PYTHON = "DUOSERVE_PYTHON"
# Seconds after which a service has started; one that ends sooner is restarted with back-off.
ENGINE_SECONDS, START_SECONDS = 120, 20
# Seconds that the router may call an engine down; when it hangs, STALL_SECONDS have passed before.
_ENGINE_SILENCE = 30.0
# Of an engine for embeddings: where others want all of its core it gets a tenth, enough not to seem to hang.
_INDEXING_NICE = 10


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
        self._process: subprocess.Popen[bytes] | None = None

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
        configuration = self._folder / "supervisord.conf"
        configuration.write_text(self._configuration())
        for name in settings.services:
            write_private(settings.run / f"{name}.json", json.dumps(asdict(self._service(name))))
        settings.record()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.stack.supervision.daemon", str(configuration)],
            cwd=ROOT,
            env=self._environment() | marks(settings.home, SUPERVISOR),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=None if detached else lambda: end_with_parent(signal.SIGTERM),
        )

    def running(self) -> bool:
        return self.states() is not None

    def ended(self) -> bool:
        """Whether the supervisor that `start` started has ended."""
        return self._process is not None and self._process.poll() is not None

    def crashed(self) -> bool:
        """Whether the supervisor that `start` started did not end in order; waits for its end."""
        return self._process is not None and self._process.wait() != 0

    def states(self) -> list[ServiceState] | None:
        """The state of each service that was started, or None if supervisor is not running."""
        try:
            answers: Any = self._ask("getAllProcessInfo")
        # A fault is the answer of a supervisor that is shutting down.
        except (OSError, http.client.HTTPException, xmlrpc.client.Fault):
            return None
        return [
            ServiceState(
                answer["name"],
                answer["pid"] or None,
                answer["exitstatus"],
                max(0.0, answer["now"] - answer["start"]) if answer["pid"] else 0.0,
            )
            for answer in answers
        ]

    def stop(self) -> bool:
        """Stop all services and supervisor, and kill what is left; returns whether anything was running."""
        supervisors = marked(self.settings.home, SUPERVISOR)
        try:
            self._ask("shutdown")
        except (OSError, http.client.HTTPException, xmlrpc.client.Fault):
            # It does not listen yet, or was killed.
            for each in supervisors:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.terminate()
        wait(supervisors, GRACE + 10)
        left = marked(self.settings.home)
        end(left)
        shutil.rmtree(self._folder, ignore_errors=True)
        self.settings.forget()
        return bool(supervisors or left)

    def _ask(self, question: str) -> Any:
        # supervisor's transport reports a missing socket file as OSError
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self._socket))
        transport = SupervisorTransport(serverurl=f"unix://{self._socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        return getattr(proxy.supervisor, question)()

    def _environment(self) -> dict[str, str]:
        """For supervisor, and so for the guards."""
        limits = {name: self.settings.variables[name] for name in ("LOG_DAYS", "LOG_TOTAL_GB")}
        return variables.passed() | limits | {_PYTHON: shlex.quote(sys.executable)}

    def _configuration(self) -> str:
        """Holds no path of the user's: supervisor would expand `%` in it, and cut it at ` ;` or ` #`."""
        sections = [
            "[unix_http_server]",
            f"file={self._socket}",
            "chmod=0700",
            "[supervisord]",
            "logfile=/dev/null",  # the log is its standard output
            "logfile_maxbytes=0",
            f"pidfile={self._folder}/supervisord.pid",
            f"childlogdir={self._folder}",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for priority, name in enumerate(self.settings.services):
            sections += [
                f"[program:{name}]",
                f"command=%(ENV_{_PYTHON})s -m services.stack.supervision.guard {name}",
                f"priority={priority}",
                f"startsecs={ENGINE_SECONDS if name in self.settings.local_engines else START_SECONDS}",
                "startretries=1000000",  # it waits a second longer each time, and never gives up
                "autorestart=true",
                f"stopwaitsecs={GRACE + 5}",
                "stdout_logfile=NONE",  # the guard keeps the log
                "stderr_logfile=NONE",
            ]
        return "\n".join(sections) + "\n"

    def _service(self, name: str) -> Service:
        """What the guard runs."""
        nice = 0
        if engine := self.settings.local_engines.get(name):
            own = self._engine_environment(name)
            ready_url = health.url(name, self.settings)
            limits = Limits(
                ready_url=f"{self.settings.url('router')}/ready",
                engine=(engine.alias, engine.number),
                silence=_ENGINE_SILENCE,
                growth=float(self.settings.variables["ENGINE_GROWTH"]),
            )
            nice = 0 if self.settings.generates(engine.alias) else _INDEXING_NICE
        else:
            own = self.settings.variables if name == "router" else self.settings.common
            ready_url = None
            limits = Limits(health_url=health.url(name, self.settings))
        environment, temporary = variables.passed() | own, str(self._folder / name)
        return Service(self._command(name), environment, ready_url, limits, nice, temporary)

    def _command(self, name: str) -> list[str]:
        engine = self.settings.local_engines.get(name)
        if engine is None:
            return [str(BY_NAME[name].python), "-m", name]
        if self.settings.engine == "cpu":
            serve = [str(BY_NAME["engine"].python), "-m", "services.engine"]
        else:
            serve = [str(BY_NAME["engine-cuda"].folder / "bin" / "vllm"), "serve"]
        configuration = os.path.relpath(self.settings.profile / f"{engine.kind}.yaml", ROOT)
        address = ["--host", "127.0.0.1", "--port", str(self.settings.ports[name])]
        random = ["--load-format", "dummy"] if self.settings.random_weights else []
        return [*serve, "--config", configuration, *address, *random]

    def _engine_environment(self, name: str) -> dict[str, str]:
        engines = self.settings.local_engines
        # Of the settings only those that vLLM reads itself; it does not need the key.
        own = {name: value for name, value in self.settings.variables.items() if name.startswith("VLLM_")}
        own |= {"VLLM_CACHE_ROOT": str(self.settings.cache / "vllm")}
        # The models were downloaded before the engines start.
        own |= {"HF_HOME": str(models.HOME), "HF_HUB_OFFLINE": "1"}
        own |= self.settings.engine_variables
        if self.settings.engine == "cpu":
            own |= precision.environment_of(self.settings)
            return own
        own["TORCHINDUCTOR_CACHE_DIR"] = str(self.settings.cache / "inductor")
        if chosen := gpus.of_engine(self.settings, engines[name]):
            own["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, chosen))
        return own
