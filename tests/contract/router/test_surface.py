import itertools
import json
import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest

from router.paths import OPEN, canonical, method_of
from tests.support import ROOT
from tests.support.service import ASK, KEY, Json, Service, chat

VLLM_ROUTES = [
    "/abort_requests",
    "/collective_rpc",
    "/detokenize",
    "/docs",
    "/inference/v1/generate",
    "/invocations",
    "/is_sleeping",
    "/load",
    "/metrics",
    "/openapi.json",
    "/ping",
    "/pooling",
    "/reset_mm_cache",
    "/reset_prefix_cache",
    "/score",
    "/server_info",
    "/sleep",
    "/tokenize",
    "/tokenizer_info",
    "/update_weights",
    "/v1/audio/transcriptions",
    "/v1/embeddings",
    "/v1/load_lora_adapter",
    "/v1/realtime",
    "/v1/rerank",
    "/v1/responses/x",
    "/v1/score",
    "/version",
    "/wake_up",
]
ROUTES_OF_LITELLM = """
import os
os.environ |= {"LITELLM_OFFLINE_MODE": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
from litellm.proxy.proxy_server import app

def paths(routes):
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        yield from paths(getattr(inner, "routes", ()))
        if hasattr(route, "path"):
            yield route.path

from litellm.proxy._lazy_features import LAZY_FEATURES
lazy = [prefix for feature in LAZY_FEATURES for prefix in feature.path_prefixes]
print("\\n".join(sorted({*paths(app.routes), *lazy})))
"""


def litellm_routes() -> list[str]:
    found = subprocess.run(
        [sys.executable, "-c", ROUTES_OF_LITELLM], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return [
        line.replace("{", "").replace("}", "").replace(":path", "") for line in found.stdout.split() if line
    ]


def test_no_route_but_ours_is_reached_without_a_key_or_with_a_wrong_one(service: Service) -> None:
    routes = litellm_routes()
    assert len(routes) > 300, "LiteLLM's routes were not found"
    for path in {
        *routes,
        *VLLM_ROUTES,
        "/to/coder/v1/models",
        "/",
        "//v1/models",
        "/v1/models/",
        "/health/../docs",
    }:
        for method, headers in itertools.product(("GET", "POST"), ({}, {"authorization": "Bearer wrong"})):
            answer = ASK.request(method, f"{service.url}{path}", headers=headers)
            if canonical(path) in OPEN and method == "GET":
                assert answer.status_code == 200
            elif method_of(canonical(path)) == method:
                assert answer.status_code == 401
            else:
                assert answer.status_code in (404, 405), path
            assert "litellm" not in answer.text.replace("LITELLM_MASTER_KEY", "").replace(path, "").lower()
    assert service.engines["coder"].requests() == []


@pytest.mark.parametrize(
    "path", ["/v1/score", "/to/coder/v1/chat/completions", "/docs", "/key/generate", "/ui"]
)
def test_a_key_does_not_open_more(service: Service, path: str) -> None:
    answer = service.post(path, chat())
    assert answer.status_code == 404
    assert "does not serve" in answer.json()["error"]["message"]


@pytest.mark.parametrize("model", ["azure/coder", "coder/openai", "coder/v1", "*", "gpt-5", "vllm"])
def test_only_published_names_are_models(service: Service, model: str) -> None:
    answer = service.post("/v1/chat/completions", chat(model=model))
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert answer.json()["error"]["param"] == "model"


@pytest.mark.parametrize(
    "model",
    ["coder", "qwen2.5-coder-7b-instruct", "Qwen2.5-Coder-7B-Instruct", "GPT-4o", "openai/coder", "CODER"],
)
def test_published_names_reach_their_model(service: Service, model: str) -> None:
    answer = service.post("/v1/chat/completions", chat(model=model))
    assert answer.status_code == 200
    assert answer.json()["model"] == ("general" if model == "GPT-4o" else "coder")


def test_without_a_model_for_embeddings_the_answer_says_so(service: Service) -> None:
    answer = service.post("/v1/embeddings", {"input": "a"})
    assert answer.status_code == 400 and "no model here does" in answer.json()["error"]["message"]


def test_models_list(service: Service) -> None:
    models = ASK.get(f"{service.url}/v1/models", headers=service.headers).json()["data"]
    assert {model["id"]: model["max_model_len"] for model in models} == {
        "coder": 1000,
        "general": 1000,
        "qwen2.5-coder-7b-instruct": 1000,
        "qwen2.5-14b-instruct": 1000,
        "gpt-4o": 1000,
        "gpt-4o-mini": 1000,
    }
    assert {model["object"] for model in models} == {"model"}
    filling = {model["id"] for model in models if model["fill_in_the_middle"]}
    assert filling == {"coder", "qwen2.5-coder-7b-instruct"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat()),
        ("/v1/completions", {"model": "coder", "prompt": "hi"}),
        ("/v1/messages", chat(max_tokens=20)),
        ("/v1/responses", {"model": "coder", "input": "hi"}),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_the_engines_own(
    service: Service, path: str, body: dict[str, Any], stream: bool
) -> None:
    direct = ASK.post(f"{service.engines['coder'].url}{path}", json=body | {"stream": stream})
    ours = service.post(path, body | {"stream": stream})
    assert ours.status_code == 200

    def same(text: str) -> str:
        # Ids and times are of the request.
        parsed = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] or [
            json.loads(text)
        ]
        return json.dumps([without_ids(part) for part in parsed])

    assert same(ours.text) == same(direct.text)
    assert ours.headers["content-type"].split(";")[0] == direct.headers["content-type"].split(";")[0]
    if stream and path != "/v1/messages" and path != "/v1/responses":
        assert ours.text.rstrip().endswith("data: [DONE]")


# What the router adds to a response object, in which vLLM leaves it out.
FILLED = ("error", "store", "safety_identifier", "prompt_cache_key")


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        hidden = ("id", "created", "created_at", "item_id", "completed_at", *FILLED)
        return {key: without_ids(item) for key, item in value.items() if key not in hidden}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def test_usage_is_streamed_to_those_who_ask(service: Service) -> None:
    asked = service.post("/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}))
    assert '"usage":{' in asked.text.replace(" ", "")
    plain = service.post("/v1/chat/completions", chat(stream=True))
    assert '"prompt_tokens"' not in plain.text
    last = service.record(plain)
    assert last["prompt_tokens"] > 0
    assert last["completion_tokens"] == 16


def test_nothing_tells_of_what_is_behind(service: Service) -> None:
    answers = [
        service.post("/v1/chat/completions", chat()),
        service.post("/v1/chat/completions", chat(stream=True)),
        service.post("/v1/chat/completions", chat('mock:{"status": 500}')),
        service.post("/v1/chat/completions", chat('mock:{"status": 400}')),
        service.post("/v1/chat/completions", chat('mock:{"drop_at": 2}', stream=True)),
        service.post("/v1/chat/completions", chat('mock:{"drop_at": 0}')),
    ]
    for answer in answers:
        said = f"{answer.headers} {answer.text}".lower()
        for word in (
            "litellm",
            "uvicorn",
            "traceback",
            "hosted_vllm",
            *(e.url[7:] for e in service.engines.values()),
        ):
            assert word not in said
        assert answer.headers["x-request-id"].startswith("req-")


def test_errors_have_the_shape_of_the_api(service: Service) -> None:
    openai = service.post("/v1/chat/completions", chat(temperature="hot")).json()
    assert openai["error"].keys() == {"message", "type", "param", "code"}
    anthropic = service.post("/v1/messages", chat(max_tokens="many")).json()
    assert anthropic["type"] == "error"
    assert anthropic["error"]["type"] == "invalid_request_error"
    assert "'max_tokens'" in anthropic["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"model": "coder",}'])
def test_what_is_not_a_json_object_is_400(service: Service, body: bytes) -> None:
    answer = ASK.post(f"{service.url}/v1/chat/completions", content=body, headers=service.headers)
    assert answer.status_code == 400


def test_a_body_over_the_limit_is_refused_without_being_read(service: Service) -> None:
    sent = 0

    def parts() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 1_000_000
            yield b" " * 1_000_000

    try:
        answer = httpx.post(f"{service.url}/v1/chat/completions", content=parts(), headers=service.headers)
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # the connection was closed while the rest was being sent
    assert sent < 100_000_000
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n"
    head += "Content-Length: 999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(("size", "key", "status"), [(30_000_000, KEY, 413), (10_000_000, "sk-wrong", 401)])
def test_a_refusal_reaches_a_client_that_is_still_sending(
    service: Service, size: int, key: str, status: int
) -> None:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\nContent-Length: {size}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(head.encode() + b" " * size)
        assert connection.recv(100).startswith(f"HTTP/1.1 {status}".encode())


def test_a_request_is_one_line_of_the_log_without_its_text(service: Service) -> None:
    answer = service.post(
        "/v1/chat/completions", chat("a secret plan", stream=True, user="ann"), **{"x-request-id": "theirs"}
    )
    record = service.record(answer)
    assert record["client_request_id"] == "theirs"
    assert record["client"] == "ann"
    assert (record["alias"], record["path"], record["status"]) == ("coder", "/v1/chat/completions", 200)
    assert record["stream"] is True
    assert 0 < record["ttft_ms"] <= record["total_ms"]
    for place in (service.folder / "data" / "logs" / "requests.jsonl", service.folder / "router.log"):
        assert "secret plan" not in place.read_text()
        assert KEY not in place.read_text()


@pytest.mark.parametrize(
    "knobs",
    [{}, {"reasoning_tokens": 3}, {"tool_call": {"name": "look_up", "arguments": {"word": "sky"}}}],
    ids=["text", "reasoning", "tool"],
)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}),
        ("/v1/responses", {"input": "hi"}),
    ],
)
def test_the_first_token_is_the_first_content_of_a_stream(
    service: Service, path: str, body: Json, knobs: Json
) -> None:
    """Not what the engine sends before it has read the prompt."""
    service.engines["coder"].set(ttft_ms=300, completion_tokens=5, **knobs)
    answer = service.post(path, {"model": "coder", "stream": True, **body})
    assert answer.status_code == 200, answer.text
    record = service.record(answer)
    assert 300 <= record["ttft_ms"] <= record["total_ms"]


def test_no_file_holds_the_configuration_once_litellm_has_read_it(service: Service) -> None:
    """With the keys of providers in it, it would stay behind when the router is killed."""
    assert service.router and not list(service.router.temporary.rglob("*.yaml"))


def test_metrics_count_what_happened(service: Service) -> None:
    before = {name: service.gauge(name) for name in ("duoserve_requests_total", "duoserve_tokens_total")}
    service.record(service.post("/v1/chat/completions", chat(stream=True)))
    assert service.gauge("duoserve_requests_total") > before["duoserve_requests_total"]
    assert service.gauge("duoserve_tokens_total") >= before["duoserve_tokens_total"] + 16
    text = ASK.get(f"{service.url}/metrics", headers=service.headers).text
    for name in ("ttft", "request", "queue_wait"):
        assert f'duoserve_{name}_seconds_bucket{{alias="coder",le="0.5"}}' in text
        assert f'duoserve_{name}_seconds_bucket{{alias="coder",le="2.0"}}' in text


def test_metrics_need_the_key(service: Service) -> None:
    assert ASK.get(f"{service.url}/metrics").status_code == 401
