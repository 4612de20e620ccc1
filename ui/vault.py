"""One person's conversations on the server's disk, as ciphertext that only their personal key opens.

HKDF-SHA256 (RFC 5869) derives three things from the key: a key for AES-256-GCM, a key for the names of files,
and the name of the folder. Each conversation is one file: a nonce of 12 bytes, then the ciphertext, with the
file's name, an HMAC of the conversation's id, as associated data. The person's key itself is not kept.
"""

import contextlib
import fcntl
import hmac
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

LIMIT = 50_000_000  # bytes of ciphertext per person
_NONCE = 12  # bytes, as NIST SP 800-38D recommends for GCM
_NAME = re.compile(r"[0-9a-f]{64}")


class Conflict(Exception):
    """The file, whose name this tells, is not the version that was to be replaced."""


class Damaged(Exception):
    """The file was not written with this key, or not under this name, or has changed since."""


class Full(Exception):
    """The file would take more than `LIMIT`."""


class Vault:
    """The files of whoever has one key. Several sessions may have vaults of the same key."""

    def __init__(self, key: str, root: Path) -> None:
        """`root` is the folder of all vaults; nothing is created before the first `write`."""
        self._cipher = AESGCM(_derived(key, "content"))
        self._names = _derived(key, "names")
        self.id = _derived(key, "folder")[:16].hex()
        self._root = root
        self._folder = root / self.id

    @property
    def writable(self) -> bool:
        """Whether this process may write where the vaults are, or would be."""
        place = next(each for each in (self._root, *self._root.parents) if each.exists())
        return os.access(place, os.W_OK | os.X_OK)

    @property
    def used(self) -> bool:
        """Whether it has any files."""
        return self._folder.exists()

    def etags(self) -> dict[str, str]:
        """The version of each file, by the file's name. Raises OSError."""
        return {path.name: _etag(path) for path in self._files()}

    def read(self, name: str) -> bytes:
        """The plaintext of the file of that name.

        Raises:
            FileNotFoundError: there is none.
            Damaged: it cannot be decrypted.
        """
        if not _NAME.fullmatch(name):
            raise FileNotFoundError(name)
        stored = (self._folder / name).read_bytes()
        try:
            return self._cipher.decrypt(stored[:_NONCE], stored[_NONCE:], name.encode())
        except (InvalidTag, ValueError):
            raise Damaged(name) from None

    def write(self, conversation_id: str, content: bytes, replaces: str | None) -> tuple[str, str]:
        """Store `content` for a conversation, all of it or nothing, if its file is the version `replaces`, or
        if there is none where that is None. Returns the file's name and version.

        Raises:
            Conflict, Full, OSError: the file is as it was.
        """
        name = hmac.digest(self._names, conversation_id.encode(), "sha256").hex()
        path = self._folder / name
        nonce = os.urandom(_NONCE)
        stored = nonce + self._cipher.encrypt(nonce, content, name.encode())
        with self._locked():
            held = _etag(path) if path.exists() else None
            if held != replaces:
                raise Conflict(name)
            before = path.stat().st_size if held else 0
            others = sum(each.stat().st_size for each in self._files()) - before
            if others + len(stored) > LIMIT and len(stored) > before:
                raise Full
            self._folder.mkdir(mode=0o700, exist_ok=True)
            _replace(path, stored)
        return name, _version(stored)

    def clear(self) -> None:
        """Delete all files. Raises OSError."""
        if self.used:
            with self._locked():
                shutil.rmtree(self._folder)

    def _files(self) -> list[Path]:
        return [path for path in self._folder.glob("*") if _NAME.fullmatch(path.name)]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Other changes wait meanwhile, of other processes as well."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _derived(key: str, purpose: str) -> bytes:
    """32 bytes for one purpose, which tell nothing of the key or of those for another."""
    info = f"duoserve conversations 1 {purpose}".encode()
    return HKDF(SHA256(), length=32, salt=None, info=info).derive(key.encode())


def _etag(path: Path) -> str:
    with path.open("rb") as file:
        return _version(file.read(_NONCE))


def _version(stored: bytes) -> str:
    # Each write has a new nonce. Even an empty file, which a crash may leave, has a version.
    return stored[:_NONCE].hex() or "0"


def _replace(path: Path, content: bytes) -> None:
    """Write the file, for its owner only. Whoever reads it sees all or nothing of the change."""
    temporary = path.with_suffix(".new")  # always the same, so that a crash leaves no more than one
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
