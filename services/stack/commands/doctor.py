"""`./run doctor`: what this machine must have. `./run up` checks it too, before it starts anything."""

import ctypes
import errno
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from services.stack import environments, gpus, memory, models, precision
from services.stack.environments import ROOT
from services.stack.failure import Failure
from services.stack.memory import gib
from services.stack.settings import KEY, Settings, load
from services.stack.supervision.supervisor import Supervisor

GB = 1_000_000_000
# With the CPU profile, two engines, the router and the chat app use 6.5 GB at their peak.
MEMORY, MEMORY_ENGINE = 1 * GB, 3 * GB
# One for embeddings: the packaged model in float32.
MEMORY_EMBEDDING = 2 * GB
# What an engine with float32 takes in addition: weights 0.4 GB, KV cache 0.8 GB; at most 3.9 GB.
MEMORY_FLOAT32 = 1 * GB
# For the environments, the model and the installer's cache.
DISK_TO_INSTALL, DISK_TO_RUN = 10 * GB, 1 * GB
CPU_FLAGS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Check:
    """One check: `problem` is what is wrong and how to fix it, or None."""

    subject: str
    found: str
    problem: str | None = None


def machine(settings: Settings) -> Iterator[Check]:
    """Whether this machine can run the stack; `up` refuses to start while one of these has a problem."""
    cpu = settings.engine == "cpu"
    yield _processor() if cpu else _gpu(settings)
    yield _disk(settings)
    # Before the memory: what holds a port, such as another copy of this service, often holds that as well.
    yield from (_port(service, port, settings) for service, port in settings.ports.items())
    yield _memory(settings) if cpu else _gpu_memory(settings)


def installation(settings: Settings) -> Iterator[Check]:
    """What `up` still has to prepare, and whether the key is safe."""
    engine = "engine" if settings.engine == "cpu" else "engine-cuda"
    for name in (engine, "router", "ui"):
        environment = environments.BY_NAME[name]
        found = "up to date" if environment.up_to_date() else "will be installed by ./run up"
        if environment.moved():
            found = "of another path, as this folder was moved or copied; will be installed again by ./run up"
        yield Check(f"environment {name}", found)
    if precision.embedded(settings):
        chosen = precision.chosen(settings)
        yield Check("precision", str(chosen or "will be prepared and measured by ./run up"))
    else:
        absent = models.absent(settings)
        yield Check("models", f"will be fetched by ./run up: {', '.join(absent)}" if absent else "fetched")
    yield _key(settings)


def require(settings: Settings) -> None:
    """Refuse a machine that cannot run the stack.

    Raises:
        Failure: the first problem.
    """
    for check in machine(settings):
        if check.problem:
            raise Failure(check.problem)


def doctor() -> int:
    """Print every check; returns 0 when there is no problem, else 1."""
    settings = load()
    running = Supervisor(settings).running()
    checks = [
        # A running stack holds its own ports and memory.
        *(c for c in machine(settings) if not (running and c.subject.startswith(("port", "memory")))),
        *installation(settings),
        Check("service", "running" if running else "not running"),
    ]
    for check in checks:
        print(f"{'FAIL' if check.problem else 'ok  '}  {check.subject:22} {check.problem or check.found}")
    return 1 if any(check.problem for check in checks) else 0


def _processor() -> Check:
    flags = set(CPU_FLAGS.read_text().split())
    if "avx2" not in flags:
        return Check("processor", "", "This processor has no AVX2, which vLLM needs; use another machine.")
    if _has_no_library("libnuma.so.1"):
        problem = "The system library libnuma.so.1, which vLLM needs, is missing; install it"
        return Check("processor", "", f"{problem} (Debian, Ubuntu: apt install libnuma1).")
    best = next((flag for flag in ("amx_bf16", "avx512_bf16", "avx512f") if flag in flags), "avx2")
    return Check("processor", f"{psutil.cpu_count()} cores with {best}")


def _has_no_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return True
    return False


def _gpu(settings: Settings) -> Check:
    found = gpus.found()
    if not found:
        remedy = "install NVIDIA's driver, or run on the CPU: ./run up --engine cpu"
        return Check("GPU", "", f"No NVIDIA GPU found (nvidia-smi does not answer); {remedy}.")
    for name, engine in settings.local_engines.items():
        if (last := max(gpus.of_engine(settings, engine), default=0)) >= len(found):
            shorten = f"shorten {engine.setting}"
            return Check("GPU", "", f"{name} needs GPU {last}, there are {len(found)}; {shorten}.")
    return Check("GPU", "; ".join(f"{gpu.name}, {gib(gpu.total)}" for gpu in found))


def _gpu_memory(settings: Settings) -> Check:
    """Whether the models fit into the free memory of the smallest GPU."""
    free = min((gpu.total - gpu.used for gpu in gpus.found()), default=0)
    subject, profile = "memory of the GPU", settings.profile.name
    try:
        problems = memory.plan(settings, free).problems()
    except Failure as failure:
        return Check(subject, f"not compared with the models: {failure}")
    if problems:
        remedy = f"./run plan --profile {profile} shows the split"
        text = f"The models of {profile} do not fit into the {gib(free)} that are free"
        return Check(subject, "", f"{text}: {problems[0]} ({remedy}).")
    return Check(subject, f"{gib(free)} free, enough for the models")


def _memory(settings: Settings) -> Check:
    chosen = precision.chosen(settings)
    engine = MEMORY_ENGINE + (MEMORY_FLOAT32 if chosen and "float32" in chosen.name else 0)
    writing = [each.alias for each in settings.local_engines.values() if settings.generates(each.alias)]
    others = len(settings.local_engines) - len(writing)
    needed = MEMORY + len(writing) * engine + others * MEMORY_EMBEDDING
    available = psutil.virtual_memory().available
    text = f"{available / GB:.1f} GB available"
    if available < needed:
        return Check("memory", "", f"Only {text}, {needed / GB:.0f} GB are needed; close other programs.")
    return Check("memory", text)


def _disk(settings: Settings) -> Check:
    engine = "engine" if settings.engine == "cpu" else "engine-cuda"
    needed = DISK_TO_RUN if environments.BY_NAME[engine].up_to_date() else DISK_TO_INSTALL
    free = shutil.disk_usage(ROOT).free
    text = f"{free / GB:.1f} GB free in {ROOT}"
    if free < needed:
        return Check("disk", "", f"Only {text}, {needed / GB:.0f} GB are needed; free some space.")
    return Check("disk", text)


def _port(service: str, port: int, settings: Settings) -> Check:
    engine = settings.local_engines.get(service)
    setting = engine.setting if engine else f"{service.upper()}_PORT"
    address = settings.variables["BIND_ADDRESS"] if service in ("router", "ui") else "127.0.0.1"
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        remedy = f"stop what uses it, or change {setting} in {settings.env_file}"
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            remedy = f"change BIND_ADDRESS in {settings.env_file} to an address of this machine"
        problem = f"{service} cannot listen on {address}, port {port} ({error.strerror}); {remedy}."
        return Check(f"port of {service}", "", problem)
    return Check(f"port of {service}", f"{port} is free")


def _key(settings: Settings) -> Check:
    if not settings.env_file.exists():
        return Check("key", "will be generated by ./run up")
    if settings.env_file.stat().st_mode & 0o077:
        remedy = f"chmod 600 {settings.env_file}"
        return Check("key", "", f"{settings.env_file} can be read by other users; {remedy}")
    if not settings.variables[KEY]:
        return Check("key", "will be generated by ./run up")
    return Check("key", f"in {settings.env_file}, readable by you only")
