"""Models beside coder and general, as docs/models.md adds one."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.stack import memory, settings
from tests.support import ROOT
from tests.support.service import ASK, Service, chat
from tests.support.waiting import wait_for

DIFF = re.compile(r"```diff\n(.*?)```", re.DOTALL)
ADDED = ("config/litellm.yaml", "config/engines/cpu/small.yaml")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service after the diff in docs/models.md, which adds a third model and a fourth."""
    folder = tmp_path_factory.mktemp("models")
    checkout = folder / "checkout"
    shutil.copytree(ROOT / "config", checkout / "config")
    (diff,) = DIFF.findall((ROOT / "docs" / "models.md").read_text())
    subprocess.run(["git", "apply"], cwd=checkout, input=diff, text=True, check=True)
    running = Service(folder, litellm_config=checkout / ADDED[0], profile=checkout / "config/engines/cpu")
    path = checkout / ADDED[0]
    text = path.read_text()
    for name, url in {"embedding": "http://127.0.0.1:8003", "small": "http://127.0.0.1:8005"}.items():
        running.engines[name] = running.engine(name)
        text = text.replace(url, running.engines[name].url)
    path.write_text(
        text.replace("router_settings:\n", "router_settings:\n  fallbacks: [{small: [coder, general]}]\n")
    )
    with running:
        yield running


NAMES = ("coder", "general", "embedding", "small")


def test_a_third_and_a_fourth_model_answer_and_are_listed(service: Service) -> None:
    wait_for(lambda: service.ready() == dict.fromkeys(NAMES, "ready"), "all are ready")
    embedded = service.post("/v1/embeddings", {"model": "embedding", "input": "hi"})
    assert embedded.status_code == 200
    assert service.engines["embedding"].requests()[-1]["path"] == "/v1/embeddings"
    answer = service.post("/v1/chat/completions", chat(model="small"))
    assert answer.status_code == 200
    assert service.engines["small"].requests()[-1]["path"] == "/v1/chat/completions"
    assert service.record(answer)["alias"] == "small"
    listed = ASK.get(f"{service.url}/v1/models", headers=service.headers).json()["data"]
    assert {model["id"]: model["max_model_len"] for model in listed}["small"] == 2048
    assert (
        'duoserve_slots{alias="small"} 4.0' in ASK.get(f"{service.url}/metrics", headers=service.headers).text
    )
    unknown = service.post("/v1/chat/completions", chat(model="smal"))
    assert unknown.status_code == 404 and "Did you mean 'small'?" in unknown.text


def test_another_answers_for_one_that_is_down(service: Service) -> None:
    service.engines["small"].stop()
    wait_for(lambda: service.ready()["small"] == "down", "it is down")
    answer = service.post("/v1/chat/completions", chat(model="small"))
    assert answer.status_code == 200 and answer.headers["x-duoserve-fallback"] == "coder"
    record = service.record(answer)
    assert (record["alias"], record["fallback_from"]) == ("coder", "small")
    own = service.post("/v1/chat/completions", chat(model="general"))
    assert own.status_code == 200 and "x-duoserve-fallback" not in own.headers
    # A prompt without a chat template is written for one model.
    text = service.post("/v1/completions", {"model": "small", "prompt": "def add(", "max_tokens": 4})
    assert text.status_code == 503 and text.json()["error"]["code"] == "model_down"
    service.engines["small"].start()
    wait_for(lambda: service.ready()["small"] == "ready", "it is ready")


def test_the_stack_starts_and_plans_it_too(service: Service, tmp_path: Path) -> None:
    names = ("LITELLM_CONFIG", "PROFILE")
    lines = [f"{name}={service.environment[name]}" for name in names]
    (tmp_path / ".env").write_text("\n".join(lines) + "\n")
    loaded = settings.load(tmp_path)
    assert loaded.services == (*NAMES, "router", "ui")
    assert all(loaded.url(name) == service.engines[name].url for name in ("embedding", "small"))
    planned = {engine.alias: engine for engine in memory.plan(loaded, 16 * memory.GIB).engines}
    assert set(planned) == set(NAMES) and planned["small"].slots == 4
    assert (planned["embedding"].kv_cache, planned["embedding"].weights) == (0, 4 * 22_713_216 + 8 * 512)
    assert loaded.modes == {**dict.fromkeys(NAMES, "chat"), "embedding": "embedding"}
    assert loaded.chat_models == ("coder", "general", "small")
