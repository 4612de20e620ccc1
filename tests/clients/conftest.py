"""Real clients against the real router, with mock engines behind it."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from router.paths import SERVED
from tests.support import ROOT
from tests.support.service import KEY, Service

WINDOW = 65536  # what agents need for their own prompts
Json = dict[str, Any]


@pytest.fixture(scope="session")
def one_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("clients"), window=WINDOW)
    try:
        yield service.start()
    finally:
        service.stop()


@dataclass
class Served:
    """The service as one test sees it: what was asked of it since the test began."""

    service: Service
    before: int = 0
    key: str = KEY
    expected: set[int] = field(default_factory=lambda: {200})

    @property
    def url(self) -> str:
        return self.service.url

    def records(self) -> list[Json]:
        """The router's log of this test."""
        return self.service.records()[self.before :]

    def requests(self) -> list[Json]:
        """What reached the coder's engine."""
        return self.service.engines["coder"].requests()

    def answer(self, **knobs: Any) -> None:
        """How the coder answers from now on."""
        self.service.engines["coder"].set(**knobs)

    def check(self) -> None:
        """Nothing was rejected, and nothing asked for that is not served."""
        for record in self.records():
            assert record["path"] in SERVED, f"the client asked for {record['path']}"
            assert record["status"] in self.expected, record


@pytest.fixture
def served(one_service: Service) -> Served:
    for engine in one_service.engines.values():
        engine.reset()
    return Served(one_service, len(one_service.records()))


def node(kind: str) -> Path:
    """The folder of the Node packages in tests/clients/KIND, installed from its lock where it is not yet."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = ROOT / ".envs" / f"node-{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    lock = Path(__file__).parent / kind / "package-lock.json"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = folder / ".lock-digest"
    with (folder / ".installing").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != digest:
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(lock.with_name(name), folder)
            done = subprocess.run(
                # Not `ci`: it refuses optional packages that another system's lock leaves out.
                [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=folder,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                pytest.skip(f"npm could not install {kind}: {done.stderr.strip()[-300:]}")
            stamp.write_text(digest)
    return folder / "node_modules"


def environment(home: Path, *first: Path, **variables: str) -> dict[str, str]:
    """A clean environment: nothing of whoever runs the tests, and no telemetry."""
    path = os.pathsep.join([*(str(place) for place in first), os.environ["PATH"]])
    home.mkdir(parents=True, exist_ok=True)
    quiet = {"DO_NOT_TRACK": "1", "NO_COLOR": "1", "CI": "1", "TERM": "dumb"}
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", **quiet, **variables}
