"""The service from start to end on real engines: who serves when, what comes back, and that nothing stays."""

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.support import ROOT
from tests.support.ports import has_ipv6
from tests.support.stack import Stack
from tests.support.waiting import wait_for

ADDRESS = "::1" if has_ipv6() else "127.0.0.1"


@pytest.fixture
def own_settings() -> dict[str, str]:
    """An address of IPv6 where there is one, and a hang is noticed after half the usual time."""
    return {"BIND_ADDRESS": ADDRESS, "STALL_SECONDS": "15"}


def _pids(stack: Stack, service: str) -> set[int]:
    return {process.pid for process in stack.processes(service)}


def _ask(stack: Stack, model: str, **more: Any) -> httpx.Response:
    return httpx.post(
        f"{stack.url}/v1/completions",
        json={"model": model, "prompt": "1, 2, 3,", "max_tokens": 4} | more,
        headers=stack.headers,
        timeout=300,
    )


def _state(stack: Stack, model: str) -> str:
    answer = httpx.get(f"{stack.url}/ready", timeout=5).json()
    return str(answer["models"][model]["state"])


def _gauge(stack: Stack, name: str) -> float:
    text = httpx.get(f"{stack.url}/metrics", headers=stack.headers, timeout=60).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))


def _error(answer: httpx.Response) -> str:
    """The code of an answer's error, or of the last event of a stream that had begun."""
    events = re.findall(r"^data: ({.*)$", answer.text, re.M)
    return str(json.loads(events[-1] if events else answer.text)["error"]["code"])


def _model_process(stack: Stack, service: str) -> psutil.Process:
    """The process of an engine that runs the model."""
    engine = max(stack.processes(service), key=lambda process: process.memory_info().rss)
    assert "VLLM::EngineCore" in engine.cmdline()[0]
    return engine


def test_ctrl_c_while_loading_leaves_nothing(own_stack: Stack) -> None:
    up = own_stack.start("up")
    up.wait_for("router")
    assert own_stack.processes()
    up.process.send_signal(signal.SIGINT)
    assert up.end() == 0
    assert own_stack.processes() == []


def test_serves_early_recovers_and_leaves_nothing(own_stack: Stack) -> None:
    """One start serves several checks, because two engines take a minute to load."""
    up = own_stack.start("up")

    # The first model that is ready serves while the second is still loading.
    first = "coder" if "coder" in up.wait_for("model ready") else "general"
    second = "general" if first == "coder" else "coder"
    wait_for(lambda: _state(own_stack, first) == "ready", "the router sees the model ready")
    assert _state(own_stack, second) == "loading"
    assert _ask(own_stack, first).status_code == 200
    waiting = _ask(own_stack, second)
    assert waiting.status_code == 503 and int(waiting.headers["retry-after"]) > 0
    up.wait_for("Ctrl-C stops it")

    _serves_where_it_says(own_stack)
    _hangs_and_comes_back(own_stack, first, second)

    # A killed engine process takes its service down whole; it comes back, and the other serves on.
    before = _pids(own_stack, first)
    _model_process(own_stack, first).kill()
    wait_for(lambda: _state(own_stack, first) != "ready", "the router sees the model down")
    assert _ask(own_stack, second).status_code == 200
    wait_for(lambda: _state(own_stack, first) == "ready", "the model is ready again", 600)
    assert _ask(own_stack, first).status_code == 200
    assert not before & _pids(own_stack, first)

    # A killed guard: what it leaves behind is ended before its successor starts.
    before = _pids(own_stack, second)
    psutil.Process(own_stack.status()["services"][second]["pid"]).kill()
    wait_for(
        lambda: _state(own_stack, second) == "ready" and not before & _pids(own_stack, second),
        "the second model is ready again",
        600,
    )
    assert len(_pids(own_stack, second)) == len(before)

    # A killed supervisor takes everything with it.
    (supervisor,) = own_stack.processes("supervisor")[:1]
    supervisor.kill()
    assert up.end() == 1
    assert "supervisor died" in "".join(up.output)
    wait_for(lambda: not own_stack.processes(), "nothing is left")
    assert own_stack.run("down").returncode == 0


def _serves_where_it_says(stack: Stack) -> None:
    """On the address of BIND_ADDRESS, and on no other."""
    status = stack.status()
    assert {service["state"] for service in status["services"].values()} == {"ready"}
    page = httpx.get(stack.ui_url)
    assert page.status_code == 200 and '<div id="root">' in page.text
    listening = {
        connection.laddr.ip
        for service in ("router", "ui")
        for process in stack.processes(service)
        for connection in process.net_connections("tcp")
        if connection.status == "LISTEN"
    }
    assert listening == {ADDRESS}
    assert stack.url in stack.run("up").stdout


def _hangs_and_comes_back(stack: Stack, model: str, other: str) -> None:
    """The process with the model is stopped; its server goes on, and says that it is well."""
    profile = ROOT / "config" / "engines" / "cpu" / f"{model}.yaml"
    slots = yaml.safe_load(profile.read_text())["max-num-seqs"]
    engine = _model_process(stack, model)
    with ThreadPoolExecutor(slots + 3) as pool:
        long = {"max_tokens": 4000, "ignore_eos": True}
        running = [pool.submit(_ask, stack, model, stream=n % 2 == 0, **long) for n in range(slots)]
        wait_for(lambda: _gauge(stack, "duoserve_in_flight") == slots, "every slot is taken")
        waiting = [pool.submit(_ask, stack, model) for _ in range(3)]
        wait_for(lambda: _gauge(stack, "duoserve_waiting") == 3, "the others wait")
        engine.suspend()
        try:
            wait_for(lambda: _state(stack, model) == "down", "the router sees that the engine hangs")
            assert _ask(stack, other).status_code == 200
            refused = _ask(stack, model)
            answers = [each.result() for each in running]
            turned_away = [each.result() for each in waiting]
        finally:
            engine.resume()
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
    assert {_error(answer) for answer in answers} == {"engine_hangs"}
    assert {_error(answer) for answer in (refused, *turned_away)} == {"model_down"}
    assert {answer.status_code for answer in turned_away} == {503}
    wait_for(lambda: _state(stack, model) == "ready", "the engine goes on, or has been restarted", 600)
    assert _ask(stack, model).status_code == 200


def test_a_service_that_cannot_start_is_reported_and_nothing_is_left(own_stack: Stack) -> None:
    with (own_stack.home / ".env").open("a") as handle:
        handle.write("LITELLM_MASTER_KEY=too-short\n")
    up = own_stack.run("up", "--detach")
    assert up.returncode == 1
    assert "LITELLM_MASTER_KEY" in up.stderr and "Traceback" not in up.stderr
    assert "too-short" not in up.stdout + up.stderr
    assert own_stack.processes() == []
