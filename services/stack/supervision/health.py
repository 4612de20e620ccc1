"""Whether services answer, what a loading engine is doing, and why a service ended."""

import re
import urllib.error
import urllib.request
from pathlib import Path

from services.stack.settings import Settings

# What the guard logs.
WAITING = b"duoserve: waiting for another engine to load\n"
STARTING = b"duoserve: starting\n"
# What vLLM logs while it starts, and what the user reads.
_PHASES = (
    (re.compile(rb"Starting vLLM server"), "ready"),
    (re.compile(rb"Capturing|Graph capturing"), "capturing CUDA graphs"),
    (re.compile(rb"KV cache size"), "preparing the KV cache"),
    (re.compile(rb"Warming up|torch\.compile|Compiling"), "warming up"),
    (re.compile(rb"Loading weights took"), "weights loaded"),
    (re.compile(rb"Starting to load model|Loading safetensors|Downloading"), "loading weights"),
    (re.compile(rb"Initializing a V1 LLM engine"), "starting the engine"),
    (re.compile(STARTING), "importing vLLM"),
    (re.compile(WAITING), "waiting for another engine to load"),
)
# Without the proxy that the environment may name: it is not for loopback.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_TAIL = 20_000  # bytes at the end of a log that are read
_TELLING = re.compile(r"error|exception|invalid|refuse|cannot|must|missing|in use", re.IGNORECASE)
_PREFIX = re.compile(r"^\([^)]*\)\s*|^(INFO|WARNING|ERROR)\s+[\d-]+ [\d:]+ \[[^]]*\]\s*")


def answers(url: str) -> bool:
    """Whether a GET of `url` succeeds within two seconds."""
    try:
        with _direct.open(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def read(url: str) -> bytes:
    """The response to a GET of `url` within two seconds, whatever its status.

    Raises:
        URLError, OSError: there is none.
    """
    try:
        with _direct.open(url, timeout=2) as response:
            content: bytes = response.read()
    except urllib.error.HTTPError as error:
        content = error.read()
    return content


def url(service: str, settings: Settings) -> str:
    """The health check of a local service."""
    return settings.url(service) + ("/_stcore/health" if service == "ui" else "/health")


def probe(service: str, settings: Settings) -> bool:
    """Whether a local service answers its health check."""
    return answers(url(service, settings))


def phase(log: Path) -> str:
    """What a loading engine is doing, from the end of its log."""
    tail = _tail(log)
    place, words = max(
        ((max((m.start() for m in pattern.finditer(tail)), default=-1), words) for pattern, words in _PHASES),
        key=lambda found: found[0],
    )
    return words if place >= 0 else "starting"


def reason(log: Path) -> str:
    """The line of a log that explains best why its service ended."""
    lines = [line.strip() for line in _tail(log).decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)] or lines or ["it left no log"]
    line = telling[-1]
    while (shorter := _PREFIX.sub("", line)) != line:
        line = shorter
    return line[:300]


def _tail(log: Path) -> bytes:
    if not log.exists():
        return b""
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - _TAIL))
        return handle.read()
