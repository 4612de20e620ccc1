"""The requests of editors and agents against real engines, and what becomes of one that is superseded."""

import time
from pathlib import Path

import httpx
import pytest
import yaml

from services.stack.ide import check
from tests.support import ROOT
from tests.support.stack import Stack
from tests.support.waiting import wait_for

NAMES = list(yaml.safe_load(check.REQUESTS.read_text()))
PROFILE = yaml.safe_load((ROOT / "config" / "engines" / "cpu" / "coder.yaml").read_text())
FIM_MODEL = Path(PROFILE["model"]).name  # the name by which FIM clients know their template


@pytest.mark.parametrize("name", NAMES)
def test_a_tool_is_served_by_the_real_engine(
    stack: Stack, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MOST_EVENTS", 4)  # then it leaves, as an editor does
    for request in check.requests_of(name, "coder", FIM_MODEL, "embedding"):
        if not request.body.get("stream") and request.path != "/v1/embeddings":
            request.body["max_tokens"] = 8
        outcome = check.send(request, stack.url, stack.key)
        assert outcome.works, f"{request.what}: {outcome.detail}"


ASK = httpx.Client()  # one connection: the engine may take long to accept another while it streams


def running(stack: Stack) -> float:
    """Requests that the coder's engine works on, as vLLM counts them."""
    text = ASK.get(f"{stack.engines['coder']}/metrics").text
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running{")
    )


def test_a_superseded_completion_is_gone_from_the_engine(stack: Stack) -> None:
    """Each keystroke gives up the request before it; the engine has no more than the newest."""
    headers = {"authorization": f"Bearer {stack.key}"}
    body = {"model": "coder", "suffix": "\n\nprint(add(1, 2))", "max_tokens": 400, "min_tokens": 400}
    for typed in ("def add(a", "def add(a, b", "def add(a, b):"):
        asked = body | {"prompt": typed, "stream": True}
        start = time.monotonic()  # on a busy machine several tokens come at once, so from the beginning
        with httpx.stream("POST", f"{stack.url}/v1/completions", json=asked, headers=headers) as answer:
            events = (line for line in answer.iter_lines() if line)
            assert answer.status_code == 200 and next(events)
            for _ in range(10):
                next(events)
            step = (time.monotonic() - start) / 11
            assert running(stack) >= 1
        left = time.monotonic()
        wait_for(lambda: running(stack) == 0, "the engine is free")
        gone = time.monotonic() - left
        print(f"gone after {gone * 1000:.0f} ms, a step takes {step * 1000:.0f} ms")
        assert gone < 400 * step / 4, "it went on"
    newest = httpx.post(
        f"{stack.url}/v1/completions",
        json=body | {"prompt": "def", "max_tokens": 5, "min_tokens": 5},
        headers=headers,
        timeout=30,
    )
    assert newest.status_code == 200 and newest.json()["choices"][0]["text"]
