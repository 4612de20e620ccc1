"""`./run models fetch` and `plan` against a hub on loopback: what breaks off goes on, damage is refused."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.stack.hub import COMMIT, NAME, Hub, safetensors
from tests.support import ROOT
from tests.support.waiting import wait_for

WEIGHTS = "model-00001-of-00002.safetensors"
CONFIG = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "torch_dtype": "bfloat16",
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    size = 25_000_000  # what is received is written every 10 MB
    one = safetensors(a=("F8_E4M3", [size], size), scale=("BF16", [100], 200))
    two = safetensors(b=("BF16", [500], 1000))
    index = {"weight_map": {"a": WEIGHTS, "scale": WEIGHTS, "b": "model-00002-of-00002.safetensors"}}
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer/tokenizer.json": b"{}",
        WEIGHTS: one,
        "model-00002-of-00002.safetensors": two,
        "model.safetensors.index.json": json.dumps(index).encode(),
        "pytorch_model.bin": b"the same once more",
    }
    with Hub(files) as hub:
        yield hub


class User:
    """Someone with a profile of their own, who asks `hub`, and has their cache in `home`."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.home = home
        self.snapshot = home / "models" / "hub" / "models--team--small" / "snapshots" / COMMIT
        profile = home / "profile"
        profile.mkdir(parents=True)
        for alias in ("coder", "general"):
            values: dict[str, Any] = {
                "model": NAME,
                "revision": COMMIT,
                "max-num-seqs": 2,
                "max-model-len": 64,
            }
            values |= {"kv-cache-memory-bytes": "1M", "gpu-memory-utilization": 0.3}
            (profile / f"{alias}.yaml").write_text(yaml.safe_dump(values))
        (home / ".env").write_text(f"PROFILE={profile}\n")
        self.environment = os.environ | {
            "DUOSERVE_HOME": str(home),
            "HF_HOME": str(home / "models"),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["./run", *arguments],
            cwd=ROOT,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def fetch(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("models", "fetch", **environment)

    def has_all(self, hub: Hub) -> bool:
        wanted = {name: content for name, content in hub.files.items() if not name.endswith(".bin")}
        found = {str(p.relative_to(self.snapshot)): p for p in self.snapshot.rglob("*") if p.is_file()}
        return set(found) == set(wanted) and all(found[name].read_bytes() == wanted[name] for name in wanted)


@pytest.fixture
def user(hub: Hub, tmp_path: Path) -> User:
    return User(hub, tmp_path / "home")


def test_a_mirror_gives_all_once_and_then_nothing_is_asked_for(hub: Hub, user: User) -> None:
    fetched = user.fetch()
    assert fetched.returncode == 0, fetched.stderr
    assert "verified every file" in fetched.stdout and WEIGHTS in fetched.stdout
    assert user.has_all(hub)
    hub.asked.clear()
    assert user.fetch().returncode == 0
    assert hub.asked == []

    # Without a network, what was brought is checked all the same.
    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert user.fetch(**offline).returncode == 0
    blob = (user.snapshot / WEIGHTS).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    damaged = user.fetch(**offline)
    assert damaged.returncode == 1 and WEIGHTS in damaged.stderr and damaged.stderr.count("\n") == 1
    missing = user.fetch(**offline)
    assert missing.returncode == 1 and "HF_HUB_OFFLINE" in missing.stderr and missing.stderr.count("\n") == 1
    assert user.fetch().returncode == 0
    assert user.has_all(hub)


def test_random_weights_need_all_but_the_weights(hub: Hub, user: User) -> None:
    with (user.home / ".env").open("a") as settings:
        settings.write("LOAD_FORMAT=dummy\n")
    fetched = user.fetch()
    assert fetched.returncode == 0, fetched.stderr
    assert {path.name for path in user.snapshot.rglob("*") if path.is_file()} == {
        "config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
    }
    hub.asked.clear()
    assert user.fetch(HF_HUB_OFFLINE="1").returncode == 0  # nothing is missing

    # For real ones, the rest follows.
    (user.home / ".env").write_text((user.home / ".env").read_text().replace("dummy", "auto"))
    assert user.fetch().returncode == 0
    assert user.has_all(hub)


def test_a_connection_that_breaks_is_taken_up_where_it_was(hub: Hub, user: User) -> None:
    hub.cut = 15_000_000
    fetched = user.fetch()
    assert fetched.returncode == 0, fetched.stderr
    first, second = hub.ranges(WEIGHTS)
    assert first is None and second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 15_000_000
    assert user.has_all(hub)


def test_a_command_that_is_stopped_goes_on_the_next_time(hub: Hub, user: User) -> None:
    hub.stall = 15_000_000
    process = subprocess.Popen(
        ["./run", "models", "fetch"],
        cwd=ROOT,
        env=user.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as which the tests may run, ignores it and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert hub.stalled.wait(60)
    blobs = user.snapshot.parents[1] / "blobs"
    wait_for(
        lambda: any(part.stat().st_size > 0 for part in blobs.glob("*.part")),
        "half of the file is on the disk",
    )
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (
        process.returncode == 130
        and "run the same command again to continue" in said
        and "Traceback" not in said
    )
    hub.release.set()
    assert user.fetch().returncode == 0
    assert int(str(hub.ranges(WEIGHTS)[-1]).removeprefix("bytes=").rstrip("-")) > 0
    assert user.has_all(hub)


def test_a_damaged_file_is_refused_and_fetched_anew(hub: Hub, user: User) -> None:
    hub.flip = True
    damaged = user.fetch()
    assert damaged.returncode == 1 and "the hash is wrong" in damaged.stderr
    assert "Traceback" not in damaged.stderr
    assert not (user.snapshot / WEIGHTS).exists()
    hub.flip = False
    assert user.fetch().returncode == 0
    assert user.has_all(hub)


def test_what_cannot_be_had_is_one_line(hub: Hub, user: User) -> None:
    for path in (user.home / "profile").iterdir():
        path.write_text(path.read_text().replace(NAME, "team/none"))
    missing = user.fetch()
    assert missing.returncode == 1
    assert missing.stderr.startswith("duoserve: the hub has no model team/none")
    unreachable = user.fetch(HF_ENDPOINT="http://127.0.0.1:9")
    assert unreachable.returncode == 1 and "run the same command again to resume" in unreachable.stderr
    assert missing.stderr.count("\n") == unreachable.stderr.count("\n") == 1


def test_a_plan_asks_the_hub_for_no_more_than_the_headers(hub: Hub, user: User) -> None:
    planned = user.run("plan", "--vram", "16")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "4,096" in planned.stdout  # tokens of 2 x 2 layers x 2 heads x 16 x 2 bytes in 1 MiB
    assert all(asked for asked in hub.ranges(WEIGHTS)), "only parts of the weights were asked for"
