"""Providers that are late, that refuse again and again, or whose tokens for the minute are used up."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from mock_engine import MockEngine
from tests.support.ports import free_port
from tests.support.service import Json, Service
from tests.support.waiting import wait_for

HI: list[Json] = [{"role": "user", "content": "hi there"}]
APIS: dict[str, Json] = {
    "/v1/chat/completions": {"messages": HI, "max_tokens": 20},
    "/v1/messages": {"messages": HI, "max_tokens": 20},
    "/v1/responses": {"input": "hi there", "max_output_tokens": 20},
}
KINDS = {"openai": "openai/gpt-x", "anthropic": "anthropic/claude-x"}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockEngine]:
    log = tmp_path_factory.mktemp("provider") / "log"
    with MockEngine("gpt-x,claude-x", port=free_port(), log=log, max_model_len=100_000) as engine:
        yield engine


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, provider: MockEngine) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("remote")
    models: list[tuple[str, str, Json]] = [
        ("coder", "hosted_vllm/coder", {"api_base": "os.environ/CODER_URL"}),
        ("general", "hosted_vllm/general", {"api_base": "os.environ/GENERAL_URL"}),
    ]
    for kind, model in KINDS.items():
        own = {"api_base": f"{provider.url}/v1" if kind == "openai" else provider.url, "api_key": "x" * 20}
        late = own | {"timeout": 1, "max_parallel_requests": 1}
        models += [
            (f"late-{kind}", model, late),
            (f"replaced-{kind}", model, late),
            (f"refusing-{kind}", model, own | {"max_parallel_requests": 1}),
            (f"metered-{kind}", model, own | {"tpm": 10}),
        ]
    content = {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": model, **parameters}}
            for name, model, parameters in models
        ],
        "router_settings": {
            "num_retries": 0,
            "cooldown_time": 3,
            "allowed_fails_policy": {
                "ServiceUnavailableErrorAllowedFails": 2,
                "InternalServerErrorAllowedFails": 1000,
                "TimeoutErrorAllowedFails": 1000,
            },
            "fallbacks": [{f"replaced-{kind}": ["general"]} for kind in KINDS],
        },
    }
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump(content))
    service = Service(folder, litellm_config=config)
    with service:
        yield service


@pytest.fixture
def service(running: Service, provider: MockEngine) -> Service:
    for engine in (*running.engines.values(), provider):
        engine.reset()
    return running


def ask(service: Service, path: str, model: str, stream: bool = False) -> httpx.Response:
    return service.post(path, {"model": model, "stream": stream, **APIS[path]})


def error_of(path: str, answer: httpx.Response) -> Any:
    """The error in a response, in the shape of its API."""
    content = answer.json()
    assert (content.get("type") == "error") == (path == "/v1/messages"), answer.text
    return content["error"]


@pytest.mark.parametrize(
    ("kind", "stream", "late"),
    [
        ("openai", False, "header_delay_ms"),
        ("openai", True, "ttft_ms"),  # after it has begun the stream
        ("anthropic", True, "ttft_ms"),
    ],
)
@pytest.mark.parametrize("path", APIS)
def test_a_provider_that_does_not_answer(
    service: Service, provider: MockEngine, path: str, kind: str, stream: bool, late: str
) -> None:
    provider.set(**{late: 60_000})
    answer = ask(service, path, f"late-{kind}", stream)
    assert answer.status_code == 504, answer.text
    error = error_of(path, answer)
    assert f"({kind}) did not answer in time" in error["message"]
    if path == "/v1/messages":
        assert error["type"] == "timeout_error"
    else:
        assert (error["type"], error["code"]) == ("server_error", "provider_timeout")
    record = service.record(answer)
    assert (record["status"], record["error"], record["ttft_ms"]) == (504, "provider_failed", None)
    assert service.gauge("duoserve_in_flight") == 0
    wait_for(lambda: provider.state()["running"] == 0, "the provider no longer works")

    replaced = ask(service, path, f"replaced-{kind}", stream)
    assert replaced.status_code == 200, replaced.text
    assert replaced.headers["x-duoserve-fallback"] == "general"
    told = service.record(replaced)
    assert (told["alias"], told["fallback_from"], told["error"]) == ("general", f"replaced-{kind}", None)

    provider.reset()
    assert ask(service, path, f"late-{kind}", stream).status_code == 200  # with the only slot


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", APIS)
def test_a_provider_that_falls_silent(service: Service, provider: MockEngine, path: str, kind: str) -> None:
    provider.set(stall_at=2, stall_ms=60_000)
    answer = ask(service, path, f"late-{kind}", stream=True)
    assert answer.status_code == 200 and "did not answer in time" in answer.text
    assert "litellm" not in answer.text.lower() and answer.text.count("did not answer") == 1
    assert service.record(answer)["error"] == "provider_failed"
    provider.reset()
    assert ask(service, path, f"late-{kind}", stream=True).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", APIS)
def test_a_provider_that_fails_again_and_again_is_left_alone_for_a_while(
    service: Service, provider: MockEngine, path: str, kind: str
) -> None:
    model = f"refusing-{kind}"
    wait_for(lambda: ask(service, path, model).status_code == 200, "it is asked again")
    provider.reset()
    provider.set(status=503)
    answers = [ask(service, path, model) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [503] * 5
    assert len(provider.requests()) == 3  # one more than is allowed
    failed, left_alone = (error_of(path, answer) for answer in (answers[0], answers[-1]))
    assert "failed. Try again soon" in failed["message"] and "is not asked again" in left_alone["message"]
    if path == "/v1/messages":
        assert failed["type"] == left_alone["type"] == "overloaded_error"
    else:
        assert (failed["code"], left_alone["code"]) == ("provider_failed", "provider_cooldown")
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert {service.record(answer)["error"] for answer in answers} == {"provider_failed"}
    assert service.gauge("duoserve_in_flight") == 0
    provider.reset()
    wait_for(lambda: ask(service, path, model).status_code == 200, "it is asked again")


@pytest.mark.parametrize(
    ("kind", "path"), [("openai", "/v1/chat/completions"), ("anthropic", "/v1/messages")]
)
def test_an_entry_s_tpm_holds_for_all_clients_together(
    service: Service, provider: MockEngine, kind: str, path: str
) -> None:
    first = ask(service, path, f"metered-{kind}")
    assert first.status_code == 200
    service.record(first)  # its tokens have been counted
    for other in APIS:
        answer = ask(service, other, f"metered-{kind}")
        assert answer.status_code == 429, answer.text
        error = error_of(other, answer)
        assert f"10 tokens per minute for 'metered-{kind}'" in error["message"]
        if other == "/v1/messages":
            assert error["type"] == "rate_limit_error"
        else:
            assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert service.record(answer)["error"] == "model_limit"
    assert len(provider.requests()) == 1
