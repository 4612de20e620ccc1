"""`./run loadtest` and Locust's own modes, against mock engines: the gate passes, fails and refuses."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtests.workload.sessions import FILE, read_sessions
from mock_engine import MockEngine
from tests.support import ROOT
from tests.support.loadtest import judged, loadtest, settings, skip_if_saturated
from tests.support.ports import free_port
from tests.support.waiting import wait_for

FAST: dict[str, Any] = {"ttft_ms": 20, "itl_ms": 1, "completion_tokens": 200}
QUICK = ("--suite", "completion", "--users", "8", "--duration", "2", "--patience", "10", "--think", "0")


def test_a_fast_service_passes(tmp_path: Path) -> None:
    with MockEngine(**FAST) as engine:
        done = loadtest(engine.url, tmp_path, *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MISSED" not in done.stdout
    (folder,) = tmp_path.iterdir()
    data = json.loads((folder / "results.json").read_text())
    assert {v["verdict"] for v in data["promises"]} == {"met"}
    kinds = {s["kind"] for stage in data["stages"] for s in stage["samples"]}
    assert kinds == {"completion", "canary"}


def test_a_slow_service_fails_and_the_report_says_why(tmp_path: Path) -> None:
    with MockEngine(ttft_ms=700, itl_ms=1, completion_tokens=200) as engine:
        done = loadtest(engine.url, tmp_path, *QUICK, "--patience", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MISSED" in done.stdout
    (folder,) = tmp_path.iterdir()
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        assert "p95 time to first token, streaming" in text
        over = re.search(r"over the limit by (\d+)%", text)
        assert over, text
        assert int(over[1]) >= 40  # 700 ms or more, where 500 ms are promised


def test_failures_fail_the_gate(tmp_path: Path) -> None:
    with (
        MockEngine(ttft_ms=5, itl_ms=0, completion_tokens=200) as engine,
        running_loadtest(engine, tmp_path, *QUICK, "--patience", "1") as process,
    ):
        wait_for_requests(engine, 30)  # the warm-up is over, the load has begun
        engine.set(error_at=5)
        stdout, _ = process.communicate(timeout=120)
    skip_if_saturated(stdout)
    assert process.returncode == 1, stdout
    assert "failed requests" in stdout
    assert "error_event" in stdout


@contextmanager
def running_loadtest(engine: MockEngine, report: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "loadtests", "run", "--report", str(report), *options]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=settings(engine.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process


def wait_for_requests(engine: MockEngine, count: int) -> None:
    wait_for(lambda: len(engine.requests()) >= count, "the load begins")


REPLAY = ("--suite", "agent-replay", "--users", "4", "--duration", "2", "--patience", "20", "--think", "0")


@pytest.mark.parametrize(("cached", "verdict"), [(200_000, "met"), (100, "missed")])
def test_replayed_sessions_are_judged_by_what_the_cache_holds(
    tmp_path: Path, cached: int, verdict: str
) -> None:
    with MockEngine(ttft_ms=5, itl_ms=0, cached_tokens=cached, max_model_len=200_000) as engine:
        done = loadtest(engine.url, tmp_path, *REPLAY)
        paths = {request["path"] for request in engine.requests()}
    assert done.returncode == (0 if verdict == "met" else 1), done.stdout + done.stderr
    assert paths >= {"/v1/chat/completions", "/v1/messages", "/v1/responses"}
    (folder,) = tmp_path.iterdir()
    data = json.loads((folder / "results.json").read_text())
    verdicts = {v["name"]: v["verdict"] for v in data["verdicts"]}
    assert verdicts["tokens of the turn before that are found in the prefix cache"] == verdict
    assert verdicts["p50 of a session's time, without the pauses"] == "met"
    assert verdicts["failed requests"] == "met"
    replayed = {s["session"].partition("/")[0] for stage in data["stages"] for s in stage["samples"]} - {""}
    report = (folder / "report.md").read_text()
    assert replayed and all(name in report for name in replayed)


def test_a_trace_of_ones_own_is_replayed(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [{"session_id": "a", "input_length": 900, "output_length": 4, "hash_ids": [1, 2]}] * 2
    trace.write_text("\n".join(map(json.dumps, lines)))
    report = tmp_path / "reports"
    with MockEngine(**FAST) as engine:
        quick = ("--suite", "agent-replay", "--users", "1", "--duration", "1", "--patience", "1")
        loadtest(engine.url, report, *quick, "--think", "0", "--sessions", str(trace))
    (folder,) = report.iterdir()
    data = json.loads((folder / "results.json").read_text())
    assert {sample["session"].partition("/")[0] for sample in data["stages"][0]["samples"]} == {"a"}
    trace.write_text("{}")
    done = loadtest("http://127.0.0.1:1", report, "--sessions", str(trace))
    assert done.returncode == 64 and "line 1" in done.stderr and "Traceback" not in done.stderr


def test_sessions_are_compared_directly_and_through_the_router(tmp_path: Path) -> None:
    """Here the mock is both: each way sends every turn, and nothing is lost in either."""
    with MockEngine(ttft_ms=5, cached_tokens=200_000, max_model_len=200_000) as engine:
        command = [sys.executable, "-m", "loadtests", "replay", "--rounds", "1"]
        command += ["--json", str(tmp_path / "figures.json")]
        done = subprocess.run(
            command, cwd=ROOT, env=settings(engine.url), capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    assert "100% / 100%" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [session["session"] for session in figures] == [session.name for session in read_sessions(FILE)]
    for session in figures:
        assert len(session["direct"]["ttft_ms"]) == len(session["router"]["found_again"]) > 5


def test_too_few_requests_are_no_pass(tmp_path: Path) -> None:
    with MockEngine(**FAST) as engine:
        done = loadtest(
            engine.url, tmp_path, "--suite", "chat", "--users", "2", "--duration", "1", "--patience", "1"
        )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no verdict" in done.stdout


def test_burst_counts_refusals_apart(tmp_path: Path) -> None:
    """Refusals are neither failures nor latencies; they must come at once and say when to come back."""
    quick = ("--suite", "burst", "--users", "100", "--duration", "2", "--patience", "1")
    with (
        MockEngine(ttft_ms=300, itl_ms=1, completion_tokens=200) as engine,
        running_loadtest(engine, tmp_path, *quick) as process,
    ):
        wait_for_requests(engine, 30)
        engine.set(status=429, retry_after="1")
        stdout, _ = process.communicate(timeout=120)
    skip_if_saturated(stdout)
    (folder,) = tmp_path.iterdir()
    data = json.loads((folder / "results.json").read_text())
    verdicts = {v["name"]: v["verdict"] for v in data["verdicts"]}
    assert verdicts["p95 time until a refusal"] == "met", stdout
    assert verdicts["refusals without Retry-After"] == "met"
    assert verdicts["failed requests"] == "met"


def test_an_absent_service_is_one_clear_line(tmp_path: Path) -> None:
    with MockEngine() as gone:
        pass
    done = loadtest(gone.url, tmp_path)
    assert done.returncode == 69
    assert "./run up" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    environment = settings("http://127.0.0.1:1") | {"LITELLM_MASTER_KEY": ""}
    command = [sys.executable, "-m", "loadtests", "run", "--report", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert "LITELLM_MASTER_KEY is not set" in done.stderr


def test_open_loop_shows_the_queue_that_closed_loop_hides(tmp_path: Path) -> None:
    """20 requests a second for an engine that takes 10: waiting grows, whatever the clients do."""
    with MockEngine(ttft_ms=100, completion_tokens=200, slots=1) as engine:
        loadtest(
            engine.url,
            tmp_path,
            *("--suite", "completion", "--users", "1", "--rate", "20"),
            *("--duration", "3", "--patience", "1"),
        )
    (folder,) = tmp_path.iterdir()
    (stage,) = json.loads((folder / "results.json").read_text())["stages"]
    times = [s["ttft"] for s in sorted(stage["samples"], key=lambda s: s["started"])]
    assert len(times) > 30
    assert times[-1] > times[0] + 1000  # the first of them have queued since the ramp


@pytest.mark.slow
def test_a_soak_shows_that_the_service_becomes_slower(tmp_path: Path) -> None:
    soak = ("--suite", "soak", "--users", "5", "--duration", "60", "--patience", "1", "--think", "0.2")
    with (
        MockEngine(**FAST) as engine,
        running_loadtest(engine, tmp_path, *soak) as process,
    ):
        wait_for_requests(engine, 250)  # about half of them
        engine.set(itl_ms=3)
        stdout, _ = process.communicate(timeout=180)
    skip_if_saturated(stdout)
    assert process.returncode == 1, stdout
    (folder,) = tmp_path.iterdir()
    data = json.loads((folder / "results.json").read_text())
    verdicts = {v["name"]: v for v in data["verdicts"]}
    drift = verdicts["drift of p95 latency, last quarter / first quarter"]
    assert drift["verdict"] == "missed"
    assert drift["estimate"]["value"] > 1.5
    assert verdicts["growth of memory, last quarter / first quarter"]["verdict"] == "met"


LOCUST = (sys.executable, "-m", "locust", "--config", "loadtests/locust.conf")


def locust(url: str, *mode: str) -> None:
    """Locust's own command judges as `./run loadtest` does."""
    command = [*LOCUST, "--headless", *mode, "--suite", "completion", "--think", "0", "-u", "8", "-r", "8"]
    done = subprocess.run(
        [*command, "-t", "3s"], cwd=ROOT, env=settings(url), capture_output=True, text=True, timeout=120
    )
    assert "p95 time to first token, streaming" in done.stdout
    assert judged(done).returncode == 0, done.stdout + done.stderr
    assert "MISSED" not in done.stdout


@pytest.mark.parametrize("mode", [(), ("--processes", "2")])
def test_locusts_own_command_judges_too(mode: tuple[str, ...]) -> None:
    with MockEngine(**FAST) as engine:
        locust(engine.url, *mode)


def test_a_master_judges_what_its_workers_measured() -> None:
    port = str(free_port())
    with (
        MockEngine(**FAST) as engine,
        subprocess.Popen(
            [*LOCUST, "--worker", "--master-host", "127.0.0.1", "--master-port", port],
            cwd=ROOT,
            env=settings(engine.url),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as worker,
    ):
        try:
            locust(engine.url, "--master", "--master-bind-port", port, "--expect-workers", "1")
            assert worker.wait(30) == 0
        finally:
            worker.kill()


def test_a_slower_service_is_called_slower_than_before(tmp_path: Path) -> None:
    results: list[Path] = []
    for itl in (1, 3):
        with MockEngine(**FAST | {"itl_ms": itl}) as engine:
            loadtest(engine.url, tmp_path / str(itl), *QUICK)
        results += (tmp_path / str(itl)).glob("*/results.json")
    before, after = results
    command = [sys.executable, "-m", "loadtests", "report", str(after), "--compare", str(before)]
    subprocess.run(command, cwd=ROOT, env=settings(""), check=True, capture_output=True, timeout=60)
    (line,) = (
        line
        for line in after.with_name("report.md").read_text().splitlines()
        if line.startswith("| completion end to end, median, 8 users |")
    )
    assert line.endswith("| SLOWER |")


def test_locusts_web_page_starts_a_suite() -> None:
    port = free_port()
    with (
        MockEngine(**FAST) as engine,
        subprocess.Popen(
            [*LOCUST, "--web-port", str(port)],
            cwd=ROOT,
            env=settings(engine.url),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            page = ask(port, "GET", "/")
            assert "suite" in page
            form = "user_count=2&spawn_rate=2&suite=chat&think=0"
            assert json.loads(ask(port, "POST", "/swarm", form))["success"]
            wait_for_requests(engine, 20)
            assert {r["path"] for r in engine.requests()[-5:]} == {"/v1/chat/completions"}
            assert "TTFT" in ask(port, "GET", "/stats/requests")
        finally:
            process.terminate()


def ask(port: int, method: str, path: str, form: str | None = None) -> str:
    """A request to Locust's web page, which takes a moment to come up."""
    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
            connection.request(method, path, form, headers)
            response = connection.getresponse()
            assert response.status == 200
            return response.read().decode()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the web page did not come up"
            time.sleep(0.1)
        finally:
            connection.close()


def test_completions_are_compared_with_those_beside_an_agent() -> None:
    with MockEngine(ttft_ms=1, itl_ms=1, max_model_len=300_000) as engine:
        done = subprocess.run(
            [sys.executable, "-m", "loadtests", "beside", "--count", "2"],
            cwd=ROOT,
            env=settings(engine.url) | {"PROFILE": "cpu"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        asked = [request["body"] for request in engine.requests()]
    assert done.returncode == 0, done.stderr
    assert len([body for body in asked if "suffix" in body]) == 2 + 2 + 2
    agents = [body for body in asked if "tools" in body]
    assert agents and len(agents[0]["messages"][0]["content"]) > 8192 * 2
    assert "completions, p95: " in done.stdout and " times as long" in done.stdout
