"""`./run pin-images`: writes the digest of every third-party image next to its version.

The owner of an image can move a version to another image; a digest (name:version@sha256:...) stays the same.
python-dxf asks the registries, over the distribution API
(https://github.com/opencontainers/distribution-spec).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
from dxf import DXF, DXFBase
from dxf.exceptions import DXFError

from services.stack.environments import ROOT
from services.stack.failure import Failure

_SECONDS = 30
# `image: NAME` in Compose and Kubernetes files, and the default of a Dockerfile's argument.
_REFERENCE = re.compile(
    r"^(?P<before>\s*(?:- )?image: |ARG PYTHON_IMAGE=)"
    r"(?P<name>[^\s@:]+(?::\d+/[^\s@:]+)?):(?P<tag>[\w.-]+)(?:@(?P<digest>sha256:[0-9a-f]{64}))?$",
    re.MULTILINE,
)
_OURS = "duoserve/"  # built here


@dataclass(frozen=True)
class Pin:
    """One mention of an image in a file; `digest` is None where it is not pinned yet."""

    file: Path
    name: str
    tag: str
    digest: str | None


def files(root: Path = ROOT) -> list[Path]:
    """The files that mention images."""
    found = [root / "compose.yaml", *root.glob("*/Dockerfile"), *root.glob("services/*/Dockerfile")]
    return sorted(path for path in [*found, *root.glob("deploy/**/*.yaml")] if path.exists())


def pins(root: Path = ROOT) -> Iterator[Pin]:
    """Every mention of a third-party image."""
    for file in files(root):
        for match in _REFERENCE.finditer(file.read_text()):
            if not match["name"].startswith(_OURS):
                yield Pin(file, match["name"], match["tag"], match["digest"])


def pin(root: Path = ROOT) -> None:
    """Write the current digests into the files, and print what changed.

    Raises:
        Failure: a registry does not answer, or does not have an image; then nothing is written.
    """
    digests = {(pin.name, pin.tag): "" for pin in pins(root)}
    for name, tag in digests:
        digests[name, tag] = _digest(name, tag)
        print(f"{name}:{tag}\n  {digests[name, tag]}")

    def pinned(match: re.Match[str]) -> str:
        digest = digests.get((match["name"], match["tag"]))
        return f"{match['before']}{match['name']}:{match['tag']}@{digest}" if digest else match[0]

    changed = []
    for file in files(root):
        before = file.read_text()
        after = _REFERENCE.sub(pinned, before)
        if after != before:
            file.write_text(after)
            changed.append(str(file.relative_to(root)))
    print(f"Wrote {', '.join(changed)}." if changed else "Every image was pinned to these already.")


def _digest(name: str, tag: str) -> str:
    host, repository = registry_of(name)
    insecure = host.partition(":")[0] in ("localhost", "127.0.0.1")  # as Docker does

    def anonymously(registry: DXFBase, response: requests.Response) -> None:
        registry.authenticate(response=response)

    try:
        registry = DXF(host, repository, auth=anonymously, insecure=insecure, timeout=_SECONDS)
        digest, _ = registry.head_manifest_and_response(tag)
    except (DXFError, requests.RequestException) as error:
        if isinstance(error, requests.HTTPError) and error.response.status_code == 404:
            raise Failure(f"{host} has no image {repository}:{tag}; nothing was written.") from None
        raise Failure(
            f"the registry {host} did not answer for {repository}:{tag} ({type(error).__name__}); nothing "
            "was written. Run this on a machine that can reach it."
        ) from None
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest or ""):
        raise Failure(f"the registry {host} gave no digest for {repository}:{tag}; nothing was written.")
    return str(digest)


def registry_of(name: str) -> tuple[str, str]:
    """Host and repository of an image, as Docker reads its name: without a host it is on Docker Hub."""
    host, slash, rest = name.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        return host, rest
    return "registry-1.docker.io", name if slash else f"library/{name}"
