"""The service from start to end on real engines: who serves when, what comes back, and that nothing stays."""

import signal

import httpx
import psutil

from tests.support.stack import Stack
from tests.support.waiting import wait_for


def _pids(stack: Stack, service: str) -> set[int]:
    return {process.pid for process in stack.processes(service)}


def _ask(stack: Stack, model: str) -> httpx.Response:
    return httpx.post(
        f"{stack.url}/v1/completions",
        json={"model": model, "prompt": "1, 2, 3,", "max_tokens": 4},
        headers=stack.headers,
        timeout=60,
    )


def _state(stack: Stack, model: str) -> str:
    answer = httpx.get(f"{stack.url}/ready", timeout=5).json()
    return str(answer["models"][model]["state"])


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

    # A killed engine process takes its service down whole; it comes back, and the other serves on.
    before = _pids(own_stack, first)
    engine = max(own_stack.processes(first), key=lambda p: p.memory_info().rss)
    assert "VLLM::EngineCore" in engine.cmdline()[0]
    engine.kill()
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


def test_a_service_that_cannot_start_is_reported_and_nothing_is_left(own_stack: Stack) -> None:
    with (own_stack.home / ".env").open("a") as handle:
        handle.write("LITELLM_MASTER_KEY=too-short\n")
    up = own_stack.run("up", "--detach")
    assert up.returncode == 1
    assert "LITELLM_MASTER_KEY" in up.stderr and "Traceback" not in up.stderr
    assert "too-short" not in up.stdout + up.stderr
    assert own_stack.processes() == []
