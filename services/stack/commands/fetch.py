"""`./run models fetch`: downloads a profile's models at their pinned revisions, and verifies every file.

The files go into huggingface_hub's cache, where vLLM looks for them. The cache names each file by its hash,
SHA-256 for large files and git's for small ones, so files can be verified without the hub.
snapshot_download() starts a large file again after an interruption; here its download resumes.
"""

import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import httpx
from huggingface_hub import HfApi, RepoFile, constants, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, disable_progress_bars, enable_progress_bars

from services.stack import models
from services.stack.console import console
from services.stack.failure import Failure
from services.stack.settings import Settings, load

_WEIGHTS = "*.safetensors"
# Other formats of the same weights.
_OTHER_FORMATS = ["*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "original/*", "onnx/*"]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHUNK = 2**22


def fetch_models(verb: str, profile: str | None) -> None:
    """Fetch the models of `profile`, or of the settings' profile; `verb` is always `fetch`."""
    fetch(load().with_profile(profile))


def fetch(settings: Settings) -> None:
    """Download the models of the settings' profile where they are missing, and verify them.

    Where the engines get random weights, the models' own are left out.

    Raises:
        Failure: the hub does not provide them, the disk is too small, or a file is damaged.
    """
    models.CACHE.mkdir(parents=True, exist_ok=True)
    with (models.CACHE / ".fetching").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second one waits, and then finds everything downloaded
        _fetch(settings)


def _fetch(settings: Settings) -> None:
    weights = not settings.random_weights
    skipped = _OTHER_FORMATS if weights else [*_OTHER_FORMATS, _WEIGHTS]
    for name, revision in dict.fromkeys(models.pinned(settings)):
        try:
            commit = revision if constants.HF_HUB_OFFLINE else _download(name, revision, skipped)
        except GatedRepoError:
            raise Failure(
                f"{name} requires a registered user: accept its terms on the hub, and set HF_TOKEN."
            ) from None
        except RepositoryNotFoundError:
            raise Failure(f"the hub has no model {name}; fix `model` in the profile.") from None
        except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
            why = " ".join(str(error).split())[:200]
            raise Failure(
                f"the download of {name} stopped ({why}); run the same command again to resume it."
            ) from None
        snapshot = models.snapshot(name, commit)
        _require_whole(name, snapshot, weights)
        _verify(name, snapshot)


def _download(name: str, revision: str | None, skipped: list[str]) -> str:
    """Download the files of the model into the cache, but for `skipped`; returns the commit."""
    hub = HfApi()
    commit = revision or ""
    if not _COMMIT.fullmatch(commit):
        commit = str(hub.model_info(name, revision=revision).sha)
        console.print(f"{name} is not pinned: add `revision: {commit}` to the profile.")
    tree = hub.list_repo_tree(name, recursive=True, revision=commit)
    files = [file for file in tree if isinstance(file, RepoFile) and not _matches(file.path, skipped)]
    blobs = models.repository(name) / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    large = [file for file in files if file.lfs and not (blobs / file.lfs.sha256).exists()]
    console.print(f"{name} at {commit[:12]}: {len(files)} files, {_gb(large)} of {_gb(files)} to download")
    _require_space(blobs, large)
    for file in large:
        console.print(f"  {file.path}, {_gb([file])}", markup=False)
        _download_large(name, commit, file, blobs)
    # The small files, and the links that make a snapshot.
    disable_progress_bars()
    snapshot_download(name, revision=commit, cache_dir=models.CACHE, ignore_patterns=skipped)
    enable_progress_bars()
    return commit


def _download_large(name: str, commit: str, file: RepoFile, blobs: Path) -> None:
    assert file.lfs is not None  # noqa: S101 - for the type checker
    partial = blobs / f"{file.lfs.sha256}.part"
    with partial.open("ab") as target:
        http_get(
            hf_hub_url(name, file.path, revision=commit),
            target,
            resume_size=target.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.path,
        )
    partial.rename(blobs / file.lfs.sha256)


def _require_space(folder: Path, files: Iterable[RepoFile]) -> None:
    needed, free = sum(file.size for file in files), shutil.disk_usage(folder).free
    if needed > free:
        raise Failure(
            f"the download to {folder} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; free "
            "some space, or set HF_HOME to a folder on a larger disk."
        )


def _matches(path: str, patterns: list[str]) -> bool:
    return any(Path(path).match(pattern) for pattern in patterns)


def _require_whole(name: str, snapshot: Path | None, weights: bool) -> None:
    if models.is_whole(snapshot, weights):
        return
    if not constants.HF_HUB_OFFLINE:
        raise Failure(f"{name} has no config.json, or its safetensors files are incomplete; vLLM needs both.")
    raise Failure(
        f"{name} is incomplete in {models.CACHE}, and HF_HUB_OFFLINE is set; copy that folder, with its "
        "links, from a machine where ./run models fetch succeeded."
    )


def _verify(name: str, snapshot: Path | None) -> None:
    """Compare every file with the hash in its name; damaged files are removed."""
    damaged = []
    for path in sorted(snapshot.rglob("*") if snapshot else ()):
        if not path.is_file():
            continue
        blob = path.resolve()
        if len(blob.name) not in (40, 64) or not re.fullmatch("[0-9a-f]+", blob.name):
            raise Failure(
                f"{path} cannot be verified: copy {models.CACHE} with its links (cp -a, rsync -a, tar)."
            )
        if _hash(blob) != blob.name:
            damaged.append(path.name)
            path.unlink()
            blob.unlink()
    if damaged:
        raise Failure(
            f"{name}: the hash is wrong, so these files were removed: {', '.join(damaged)}; run the same "
            "command again to download them."
        )
    console.print(f"{name}: verified every file")


def _hash(blob: Path) -> str:
    """The hash that the file's name should be: SHA-256, or git's hash of a blob."""
    size = blob.stat().st_size
    found = (
        hashlib.sha256() if len(blob.name) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    )
    with blob.open("rb") as content:
        while chunk := content.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _gb(files: Iterable[RepoFile]) -> str:
    return f"{sum(file.size for file in files) / 1e9:.1f} GB"
