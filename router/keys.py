"""The API keys: the master key of .env, and those of the key file."""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from router.errors import BadSettings
from router.settings import ROOT, Key, Settings

_LOOK_SECONDS = 0.25
_log = logging.getLogger(__name__)


class NamedKey(BaseModel):
    """One key, or its hash, with its limits per minute (0: none) and the last day on which it is valid (UTC).

    The hash is a plain SHA-256. Slow and salted hashes protect passwords, which can be guessed; a key of 256
    random bits cannot, and is checked with every request.
    """

    model_config = ConfigDict(extra="forbid")

    key: Key | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    requests_per_minute: Annotated[int, Field(ge=0)]
    tokens_per_minute: Annotated[int, Field(ge=0)]
    expires: Annotated[date, Field(strict=True)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "NamedKey":
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("must be there once: as `key`, or hashed as `sha256`")
        return self

    @cached_property
    def digest(self) -> bytes:
        """The SHA-256 of the key."""
        if self.key is None:
            return bytes.fromhex(self.sha256 or "")
        return digest(self.key.get_secret_value())

    @property
    def expired(self) -> bool:
        """Whether its last day is over."""
        return self.expires is not None and datetime.now(UTC).date() > self.expires


def read_keys(settings: Settings, text: str | None = None) -> dict[str, NamedKey]:
    """The keys by name: `master`, and those of the key file, or of `text` as if it were in the file.

    Raises:
        BadSettings: the file cannot be read, or an entry cannot be used. The text never contains a key.
    """
    limits = {
        "requests_per_minute": settings.requests_per_minute,
        "tokens_per_minute": settings.tokens_per_minute,
    }
    keys = {"master": NamedKey.model_validate({"key": settings.litellm_master_key, **limits})}
    if settings.keys_file:
        keys |= _read(Path(settings.keys_file), text, limits)
    if len({key.digest for key in keys.values()}) < len(keys):
        raise BadSettings(
            f"KEYS_FILE: two names in {settings.keys_file} have the same key; give each its own"
        )
    return keys


def _read(path: Path, text: str | None, limits: Mapping[str, int]) -> dict[str, NamedKey]:
    try:
        entries = yaml.safe_load((ROOT / path).read_text(encoding="utf-8") if text is None else text) or {}
        if not isinstance(entries, dict):
            raise BadSettings(f"KEYS_FILE: {path} must contain 'name: key' lines")
        return {
            str(name): NamedKey.model_validate({**limits, **(e if isinstance(e, dict) else {"key": e})})
            for name, e in entries.items()
        }
    except OSError as error:
        raise BadSettings(f"KEYS_FILE: cannot read {path} ({error.strerror}); fix it or empty it") from None
    except UnicodeDecodeError:
        raise BadSettings(f"KEYS_FILE: {path} is not in UTF-8; save it in UTF-8") from None
    # yaml raises ValueError for a date that does not exist, and RecursionError for what is nested too deeply.
    except (yaml.YAMLError, RecursionError):
        raise BadSettings(f"KEYS_FILE: {path} is not YAML; it must contain 'name: key' lines") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        problem = first["msg"].removeprefix("Value error, ")
        field = first["loc"][0] if first["loc"] else "key"
        raise BadSettings(f"KEYS_FILE: an entry's {field} in {path} {problem}") from None
    except (ValueError, TypeError):
        raise BadSettings(
            f"KEYS_FILE: {path} must contain 'name: key' lines; put the keys in quotes"
        ) from None


class KeyRing:
    """The keys that are valid now, by name. Changes to the key file apply within a second."""

    def __init__(self, read: Callable[[], dict[str, NamedKey]], file: Path | None) -> None:
        """`read` returns all keys, and is called again whenever `file` changes.

        Raises:
            BadSettings: as `read` does.
        """
        self._read = read
        self._file = file
        self._read_version = self._last_version = self._version()
        self.keys: Mapping[str, NamedKey] = read()

    def name_of(self, given: bytes) -> str | None:
        """The name of the key with this SHA-256, or None. Takes the same time whichever key matches."""
        found = None
        for name, known in self.keys.items():
            # Digests have one length, so the comparison does not reveal the length of a key either.
            if hmac.compare_digest(given, known.digest):
                found = name
        return found

    async def watch(self) -> None:
        """Watch the file until cancelled."""
        while self._file:
            await asyncio.sleep(_LOOK_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        """Read the keys again if their file has changed, but not since the last call: it may be half written.

        A file that cannot be used changes nothing, and the log says why.
        """
        version, last = self._version(), self._last_version
        self._last_version = version
        if version != last or version == self._read_version:
            return
        self._read_version = version
        try:
            self.keys = self._read()
        except BadSettings as error:
            _log.error("keeping the current keys: %s", error)
        except Exception as error:  # whatever a file holds, the next one must be read
            # Without its text, which may hold a key.
            _log.error("keeping the current keys: KEYS_FILE cannot be used (%s)", type(error).__name__)
        else:
            _log.info("read the keys again: %s", ", ".join(self.keys))

    def _version(self) -> tuple[int, int, int] | None:
        try:
            stat = self._file.stat() if self._file else None
        except OSError:
            return None
        return stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def digest(key: str) -> bytes:
    """The SHA-256 of a key."""
    return hashlib.sha256(key.encode()).digest()
