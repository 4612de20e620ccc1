"""A model hub on loopback, as far as huggingface_hub asks one: a tree, its files and parts of them."""

import hashlib
import json
import re
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "team/small"


def safetensors(**tensors: tuple[str, list[int], int]) -> bytes:
    """A file in safetensors format; each tensor is its type, shape and number of bytes."""
    header, offset = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    body = bytes(range(251)) * (offset // 251 + 1)
    return struct.pack("<Q", len(encoded)) + encoded + body[:offset]


@dataclass
class Hub:
    """`files` by path. `cut` and `stall` are bytes after which the next download of a large file breaks off,
    or stands still; `flip` damages what is sent.
    """

    files: dict[str, bytes]
    cut: int | None = None
    stall: int | None = None
    flip: bool = False
    # Path and Range header of every download.
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def ranges(self, path: str) -> list[str | None]:
        return [asked for name, asked in self.asked if name == path]

    @staticmethod
    def is_large(path: str) -> bool:
        return path.endswith(".safetensors")

    def entry(self, path: str) -> dict[str, Any]:
        """The file as the hub's API lists it."""
        content = self.files[path]
        found: dict[str, Any] = {
            "type": "file",
            "path": path,
            "size": len(content),
            "oid": _git_hash(content),
        }
        if self.is_large(path):
            found["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
        return found


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == f"/api/models/{NAME}/tree/{COMMIT}":
            self._json([self.state.entry(file) for file in self.state.files])
        elif path.startswith(f"/api/models/{NAME}"):
            siblings = [{"rfilename": file} for file in self.state.files]
            self._json({"id": NAME, "modelId": NAME, "sha": COMMIT, "siblings": siblings, "tags": []})
        elif (found := re.fullmatch(f"/{NAME}/resolve/{COMMIT}/(.+)", path)) and found[1] in self.state.files:
            self._file(found[1])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound" if NAME not in path else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _file(self, path: str) -> None:
        state, content = self.state, self.state.files[path]
        large = state.is_large(path)
        asked = self.headers.get("Range")
        first, last = 0, len(content) - 1
        if asked and (limits := re.fullmatch(r"bytes=(\d+)-(\d*)", asked)):
            first, last = int(limits[1]), min(last, int(limits[2] or last))
        part = content[first : last + 1]
        self.send_response(206 if asked else 200)
        digest = _sha256(content) if large else _git_hash(content)
        self.send_header("ETag", f'"{digest}"')
        if large:
            self.send_header("X-Linked-ETag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        state.asked.append((path, asked))
        if large and state.flip:
            part = part[:-1] + bytes([part[-1] ^ 1])
        if large and state.cut is not None:
            part, state.cut = part[: state.cut], None
            self.close_connection = True
        if large and state.stall is not None:
            self.wfile.write(part[: state.stall])
            self.wfile.flush()
            state.stall = None
            state.stalled.set()
            state.release.wait(60)
            self.close_connection = True
            return
        self.wfile.write(part)

    def _json(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
