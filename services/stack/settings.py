"""The settings: `.env` over the defaults in `.env.example`, and what follows from them.

Every other process gets them as environment variables, and checks those that it uses.
"""

import difflib
import io
import ipaddress
import json
import math
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from dotenv.parser import parse_stream

from services.stack import model_list
from services.stack.environments import ROOT
from services.stack.failure import Failure

KEY = "LITELLM_MASTER_KEY"
# Settings of earlier versions, and where they went.
_MOVED = {
    "MODEL_ALIASES": "router_settings.model_group_alias in config/litellm.yaml",
}
# The variants of services/engine/precision.py.
_PRECISION = re.compile(r"auto|(int8-bfloat16|bfloat16|int8-float32|float32)(-compiled)?")
PROFILES = ROOT / "config" / "engines"
# The profile that `up --engine cpu|cuda` selects when PROFILE is for the other kind of machine.
DEFAULT_PROFILE = {"cpu": "cpu", "cuda": "blackwell-96gb"}
EXAMPLE = ROOT / ".env.example"
_ASSIGNMENT = re.compile(rf"^{KEY}=.*$", re.MULTILINE)


@dataclass(frozen=True)
class Engine:
    """One of the engines of the model `alias`, numbered from 1.

    Attributes:
        alias: its model_name in config/litellm.yaml.
        kind: its file in the profile is `kind`.yaml; engines of one kind are numbered together.
        port: None if it runs on another host.
        setting: what holds its URL.
        mode: what its entry says that it is for, if it does.
    """

    alias: str
    kind: str
    number: int
    url: str
    port: int | None
    setting: str
    mode: str = ""

    @property
    def name(self) -> str:
        """The name of the engine's service: `coder`, `coder-2` ..."""
        return self.kind if self.number == 1 else f"{self.kind}-{self.number}"


@dataclass(frozen=True)
class Settings:
    """The settings of one stack.

    Attributes:
        home: the folder of its `.env` and `data`.
        variables: all settings by name.
    """

    home: Path
    variables: dict[str, str]

    @property
    def env_file(self) -> Path:
        return self.home / ".env"

    @property
    def logs(self) -> Path:
        return self.home / "data" / "logs"

    @property
    def run(self) -> Path:
        """The folder for files that are needed only while the stack runs."""
        return self.home / "data" / "run"

    @property
    def cache(self) -> Path:
        """The folder for files that can be deleted, and are then made again."""
        return self.home / "data" / "cache"

    @property
    def engine(self) -> str:
        """The build of vLLM that the profile needs, as its engine.env says: `cpu` or `cuda`."""
        return self.engine_variables.get("VLLM_TARGET_DEVICE", "cuda")

    @property
    def profile(self) -> Path:
        """The folder of the engines' configuration."""
        return PROFILES / self.variables["PROFILE"]

    @property
    def random_weights(self) -> bool:
        """Whether the engines get random weights in place of the models' own."""
        return self.variables["LOAD_FORMAT"] == "dummy"

    @property
    def engine_variables(self) -> dict[str, str]:
        """What the profile's engine.env holds."""
        return _read(self.profile / "engine.env")

    @cached_property
    def engines(self) -> tuple[Engine, ...]:
        """All engines, including those on other hosts."""
        return tuple(_engines(self.variables))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The engines' files in the profile, without `.yaml`, in the order of model_list."""
        return tuple(dict.fromkeys(engine.kind for engine in self.engines))

    @property
    def aliases(self) -> tuple[str, ...]:
        """The names of the models that engines serve, in the order of model_list."""
        return tuple(dict.fromkeys(engine.alias for engine in self.engines))

    @cached_property
    def modes(self) -> dict[str, str]:
        """What each model is for, as `/v1/models` says it: `chat`, `completion`, `embedding` or `rerank`."""
        return {engine.alias: engine.mode or self._mode(engine.kind) for engine in self.engines}

    def _mode(self, kind: str) -> str:
        return "embedding" if self.values(kind).get("runner") == "pooling" else "chat"

    def generates(self, alias: str) -> bool:
        """Whether a model writes text."""
        return self.modes[alias] in ("chat", "completion")

    @property
    def chat_models(self) -> tuple[str, ...]:
        """The models to chat with; all of them if none is."""
        return tuple(alias for alias in self.aliases if self.modes[alias] == "chat") or self.aliases

    @cached_property
    def remote(self) -> dict[str, str]:
        """The models that other services answer, with their providers."""
        listed = model_list.entries(self.variables)
        return {entry.name: entry.provider for entry in listed if entry.provider}

    def values(self, kind: str) -> dict[str, Any]:
        """The content of an engine's file in the profile.

        Raises:
            Failure: it is not vLLM's configuration.
        """
        path = self.profile / f"{kind}.yaml"
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise Failure(f"{path} cannot be read: {' '.join(str(error).split())}.") from None
        if not isinstance(values, dict) or not isinstance(values.get("model"), str):
            raise Failure(f"{path} lacks model.")
        return values

    @property
    def common(self) -> dict[str, str]:
        """The settings of .env.example: all but the keys of other services, which only the router needs."""
        example = _read(EXAMPLE)
        return {name: value for name, value in self.variables.items() if name in example}

    @property
    def local_engines(self) -> dict[str, Engine]:
        """The engines that run on this machine, by the names of their services."""
        return {engine.name: engine for engine in self.engines if engine.port is not None}

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services that run on this machine, in the order in which they are shown."""
        return (*self.local_engines, "router", "ui")

    @cached_property
    def ports(self) -> dict[str, int]:
        """The port of each service that runs on this machine, by its name."""
        return {
            **{name: engine.port for name, engine in self.local_engines.items() if engine.port},
            "router": _port("ROUTER_PORT", self.variables),
            "ui": _port("UI_PORT", self.variables),
        }

    @property
    def host(self) -> str:
        """The address at which this machine reaches the router and the chat app."""
        bind = self.variables["BIND_ADDRESS"]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104 - compared, not bound
        return f"[{host}]" if ":" in host else host

    def url(self, service: str) -> str:
        """The base URL of a service, as this machine reaches it."""
        host = "127.0.0.1" if service in self.local_engines else self.host
        return f"http://{host}:{self.ports[service]}"

    def record(self) -> None:
        """Write down that these are the settings of what runs."""
        write_private(self._record, json.dumps(self.variables))

    def forget(self) -> None:
        """The opposite of `record`."""
        self._record.unlink(missing_ok=True)

    def recorded(self) -> "Settings | None":
        """The settings of what runs, whatever `.env` says by now; None if they are not known."""
        try:
            recorded = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return None
        return Settings(self.home, recorded)

    @property
    def _record(self) -> Path:
        return self.run / "started.json"

    def with_engine(self, engine: str | None) -> "Settings":
        """These settings, with the default profile for `engine` if theirs is for the other kind."""
        if engine in (None, self.engine):
            return self
        return self.with_profile(DEFAULT_PROFILE[engine])

    def with_profile(self, name: str | None) -> "Settings":
        """These settings with the profile `name`, if there is a name.

        Raises:
            Failure: there is no such profile.
        """
        if name is None:
            return self
        changed = Settings(self.home, {**self.variables, "PROFILE": name})
        kinds = changed.kinds
        absent = [kind for kind in kinds if not (changed.profile / f"{kind}.yaml").is_file()]
        if not name or not any(changed.profile.glob("*.yaml")):
            known = ", ".join(sorted(path.name for path in PROFILES.iterdir() if path.is_dir()))
            problem = f"PROFILE={name} is unknown" if name else "PROFILE is empty"
            raise Failure(f"{problem}; set it to one of: {known}.")
        if absent:
            raise Failure(
                f"PROFILE={name} lacks {absent[0]}.yaml in {changed.profile}; copy it from another, or "
                f"remove hosted_vllm/{absent[0]} from {model_list.path_of(changed.variables)}."
            )
        if changed.engine not in DEFAULT_PROFILE:
            file = changed.profile / "engine.env"
            raise Failure(f"VLLM_TARGET_DEVICE={changed.engine} in {file} must be cpu or cuda.")
        return changed


def home() -> Path:
    """DUOSERVE_HOME, or the checkout.

    Raises:
        Failure: it is relative; to what, nobody could tell.
    """
    path = Path(os.environ.get("DUOSERVE_HOME") or ROOT)
    if not path.is_absolute():
        raise Failure(
            f"DUOSERVE_HOME={path} is not an absolute path; set it to one, such as {Path.cwd() / path}."
        )
    return path.resolve()


def load(folder: Path | None = None) -> Settings:
    """Read the settings of the stack in `folder`, by default in `home()`; without `.env`, the defaults.

    ROUTER_URL, if it is empty, becomes the address of the router on this machine.

    Raises:
        Failure: a name that is not a setting, or a value that the stack cannot use.
    """
    folder = folder or home()
    defaults = _read(EXAMPLE)
    own = _read(folder / ".env")
    config = model_list.path_of(defaults | own)
    known = defaults.keys() | model_list.variables_of(config)
    for name in own:
        if name in _MOVED:
            raise Failure(f"{name} in {folder / '.env'} is {_MOVED[name]} now; move it there.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "see .env.example."
            raise Failure(f"{name} in {folder / '.env'} is not a setting; {hint}")
    settings = Settings(folder, defaults | own)
    settings.with_profile(settings.variables["PROFILE"])
    if (load_format := settings.variables["LOAD_FORMAT"]) not in ("auto", "dummy"):
        raise Failure(f"LOAD_FORMAT={load_format} is neither auto nor dummy; fix it in .env.")
    if not _PRECISION.fullmatch(precision := settings.variables["CPU_PRECISION"]):
        raise Failure(
            f"CPU_PRECISION={precision} is neither auto nor int8-bfloat16, bfloat16, int8-float32 or "
            "float32, with or without -compiled after it; fix it in .env."
        )
    for name in ("LOG_DAYS", "LOG_TOTAL_GB"):
        _check_above(0, name, settings.variables)
    _check_above(1, "ENGINE_GROWTH", settings.variables)
    _port("GRAFANA_PORT", settings.variables)
    _check_address("BIND_ADDRESS", settings.variables)
    _check_router_url(settings.variables["ROUTER_URL"])
    taken: dict[int, str] = {}
    for service, port in settings.ports.items():
        if port in taken:
            raise Failure(f"{service} and {taken[port]} both have port {port}; change one of them in .env.")
        taken[port] = service
    router = settings.variables["ROUTER_URL"].rstrip("/") or settings.url("router")
    return Settings(folder, settings.variables | {"ROUTER_URL": router})


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, because it holds the key."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)


def ensure_key(folder: Path, say: Callable[[str], None]) -> None:
    """Write a random key to `.env` unless it has one, and make the file readable for its owner only."""
    path = folder / ".env"
    line = f"{KEY}=sk-{secrets.token_urlsafe(32)}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(f"# Your settings; .env.example lists them all.\n{line}\n")
        say(f"Generated a key in {path}")
        return
    path.chmod(0o600)
    if not _read(path).get(KEY):
        text = _text(path)
        text = _ASSIGNMENT.sub(line, text) if _ASSIGNMENT.search(text) else f"{text}\n{line}\n"
        path.write_text(text, encoding="utf-8")
        say(f"Generated a key in {path}")


def _read(path: Path) -> dict[str, str]:
    """The settings in a file; none if there is no file.

    Raises:
        Failure: naming the line that is not a setting.
    """
    settings = {}
    for binding in parse_stream(io.StringIO(_text(path))):
        line = binding.original.string.strip()
        number = binding.original.line + binding.original.string.split(line[:1] or "\n")[0].count("\n")
        if binding.error or (binding.key is not None and binding.value is None):
            raise Failure(
                f"line {number} of {path} is not a setting: {_without_value(line)}; write it as NAME=value."
            )
        if binding.key is not None:
            settings[binding.key] = binding.value or ""
    return settings


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Failure(
            f"{path} cannot be read ({error.strerror}); it must be a file that you may read."
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Failure(f"line {line} of {path} is not in UTF-8; save the file in UTF-8.") from None


def _without_value(line: str) -> str:
    """The start of a line, and not what may be a key."""
    return (
        re.split(r"[^A-Za-z0-9_ ]", line.splitlines()[0] if line else "", maxsplit=1)[0].strip()[:40] + " ..."
    )


def _port(name: str, variables: dict[str, str]) -> int:
    value = variables[name]
    if not (value.isascii() and value.isdecimal()) or not 1 <= int(value) <= 65535:
        raise Failure(f"{name}={value} is not a port; set it to a number from 1 to 65535 in .env.")
    return int(value)


def _check_above(least: int, name: str, variables: dict[str, str]) -> None:
    value = variables[name]
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not least < number < math.inf:
        raise Failure(f"{name}={value} is not a number above {least}; fix it in .env.")


def _check_address(name: str, variables: dict[str, str]) -> None:
    value = variables[name]
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise Failure(
            f"{name}={value} is not an IP address; set it to one, such as 127.0.0.1, 0.0.0.0 or ::1."
        ) from None


def _check_router_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if url and not good:
        raise Failure(f"ROUTER_URL={url} is not a URL; set it to one, such as https://ai.example.com.")


def _engines(variables: dict[str, str]) -> Iterator[Engine]:
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    for entry in model_list.entries(variables):
        if entry.engine is None:
            continue
        if entry.engine in ("router", "ui"):
            raise Failure(f"hosted_vllm/{entry.engine} has the name of a service; rename the engine.")
        urls = [url.strip() for url in entry.base.split(",") if url.strip()]
        found = {(entry.engine, url) for url in urls}
        if not urls or len(found) < len(urls) or seen & found:
            raise Failure(
                f"{entry.setting} must hold one or more URLs, each once, for example http://127.0.0.1:8001."
            )
        seen |= found
        for url in urls:
            counts[entry.engine] += 1
            yield replace(
                _engine(entry.name, entry.engine, counts[entry.engine], url, entry.setting), mode=entry.mode
            )


def _engine(alias: str, kind: str, number: int, url: str, name: str) -> Engine:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/", "/v1", "/v1/"):
        raise Failure(f"{name}: {url} is not the URL of an engine, such as http://127.0.0.1:8001.")
    if host == "127.0.0.1" and parts.scheme == "http":
        if port is None:
            raise Failure(f"{name}: {url} lacks the port that the engine listens on, for example {url}:8001.")
        return Engine(alias, kind, number, f"{parts.scheme}://{parts.netloc}", port, name)
    if host in ("localhost", "0.0.0.0", "::", "::1") or host.startswith("127."):  # noqa: S104 - compared
        raise Failure(
            f"{name}: {url} must be http://127.0.0.1:PORT, because local engines listen only there."
        )
    return Engine(alias, kind, number, f"{parts.scheme}://{parts.netloc}", None, name)
