"""Remote models, behind LiteLLM: what clients of local models rely on holds for them too."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
import yaml

from mock_engine import MockEngine
from tests.support.ports import free_port
from tests.support.service import ASK, Json, Service, chat
from tests.support.waiting import until, wait_for

SECRET = "sk-the-provider-s-own-key"
REMOTE = ("big", "claude", "gemini")
CALLBACK = """
import json
from pathlib import Path
from litellm.integrations.custom_logger import CustomLogger

class Recorder(CustomLogger):
    def write(self, what, kwargs, start, end):
        payload = kwargs.get("standard_logging_object") or {}
        with (Path(__file__).parent / "heard.jsonl").open("a") as file:
            print(json.dumps({
                "what": what,
                "group": payload.get("model_group"),
                "key": payload["metadata"]["user_api_key_alias"],
                "client": payload["metadata"]["user_api_key_end_user_id"],
                "prompt_tokens": payload.get("prompt_tokens"),
                "completion_tokens": payload.get("completion_tokens"),
                "seconds": (end - start).total_seconds(),
                "all": repr(kwargs) + repr(payload),
            }), file=file)

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.write("success", kwargs, start_time, end_time)

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.write("failure", kwargs, start_time, end_time)

recorder = Recorder()
"""


def entry(name: str, model: str, **parameters: Any) -> Json:
    return {"model_name": name, "litellm_params": {"model": model, **parameters}}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockEngine]:
    """A mock of OpenAI, Anthropic and Google."""
    log = tmp_path_factory.mktemp("provider") / "log"
    names = "gpt-x,claude-x,gemini-x,embed-x"
    with MockEngine(names, port=free_port(), log=log, max_model_len=100_000) as engine:
        yield engine


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, provider: MockEngine) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("remote")
    (folder / "recorder.py").write_text(CALLBACK)
    config = folder / "litellm.yaml"
    openai_like = {"api_base": f"{provider.url}/v1", "api_key": "os.environ/BIG_KEY"}
    three = {"max_parallel_requests": 3}
    content = {
        "model_list": [
            entry("coder", "hosted_vllm/coder", api_base="os.environ/CODER_URL"),
            entry("general", "hosted_vllm/general", api_base="os.environ/GENERAL_URL", **three),
            entry("big", "openai/gpt-x", **openai_like),
            entry("claude", "anthropic/claude-x", api_base=provider.url, api_key=SECRET)
            | {"model_info": {"max_input_tokens": 5000, "description": "hard questions"}},
            entry("gemini", "gemini/gemini-x", api_base=f"{provider.url}/v1beta", api_key=SECRET),
            entry("vectors", "openai/embed-x", allowed_openai_params=["dimensions"], **openai_like)
            | {"model_info": {"mode": "embedding"}},
            entry("narrow", "openai/gpt-x", max_parallel_requests=1, **openai_like),
            entry("scarce", "openai/gpt-x", rpm=2, **openai_like),
            entry("gone", "openai/gpt-x", api_base=f"http://127.0.0.1:{free_port()}/v1", api_key=SECRET),
        ],
        "router_settings": {
            "num_retries": 0,
            "disable_cooldowns": True,
            "fallbacks": [{"coder": ["claude"]}, {"gone": ["general"]}],
            "context_window_fallbacks": [{"general": ["claude"]}],
            "model_group_alias": {"hard": "claude"},
        },
        "litellm_settings": {"callbacks": ["recorder.recorder"]},
    }  # fmt: skip
    config.write_text(yaml.safe_dump(content))
    service = Service(folder, litellm_config=config, big_key=SECRET)
    with service:
        yield service


@pytest.fixture
def service(running: Service, provider: MockEngine) -> Service:
    for engine in (*running.engines.values(), provider):
        engine.reset()
    (running.folder / "heard.jsonl").unlink(missing_ok=True)
    return running


def heard(service: Service) -> list[Json]:
    path = service.folder / "heard.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def sdk(service: Service) -> openai.OpenAI:
    key = service.headers["authorization"].removeprefix("Bearer ")
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0)


def anthropic_sdk(service: Service) -> anthropic.Anthropic:
    key = service.headers["authorization"].removeprefix("Bearer ")
    return anthropic.Anthropic(base_url=service.url, api_key=key, max_retries=0)


HI: list[Any] = [{"role": "user", "content": "hi there"}]
SCHEMA: dict[str, object] = {"type": "object", "properties": {"word": {"type": "string"}}}
TOOL: Json = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}


def test_embeddings(service: Service, provider: MockEngine) -> None:
    found = sdk(service).embeddings.create(model="vectors", input=["one text", "another"], dimensions=16)
    assert len(found.data) == 2 and found.usage.prompt_tokens > 0
    assert (provider.requests()[-1]["body"]["dimensions"], found.data[0].index) == (16, 0)
    plain = service.post("/v1/embeddings", {"model": "vectors", "input": "one text", "dimensions": 16})
    assert plain.status_code == 200, plain.text
    assert plain.json()["data"][0]["embedding"] == pytest.approx(found.data[0].embedding, abs=1e-6)
    record = service.record(plain)
    assert (record["alias"], record["provider"], record["prompt_tokens"]) == (
        "vectors",
        "openai",
        plain.json()["usage"]["prompt_tokens"],
    )
    wrong = service.post("/v1/embeddings", {"model": "big", "input": "one text"})
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "model"
    assert service.post("/v1/chat/completions", chat(model="vectors")).status_code == 400
    down = service.post("/v1/embeddings", {"model": "vectors", "input": 'mock:{"status": 500}'})
    assert down.status_code == 503 and down.json()["error"]["code"] == "provider_failed", down.text


@pytest.mark.parametrize("model", REMOTE)
def test_chat(service: Service, provider: MockEngine, model: str) -> None:
    answer = service.post("/v1/chat/completions", chat(model=model, max_tokens=5))
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content["choices"][0]["message"]["content"].strip() and content["usage"]["completion_tokens"] == 5
    record = service.record(answer)
    assert (record["alias"], record["completion_tokens"], record["engine"]) == (model, 5, None)
    assert record["provider"] == {"big": "openai", "claude": "anthropic", "gemini": "gemini"}[model]
    assert "x-duoserve-queue-wait-ms" in answer.headers
    assert not [name for name in answer.headers if "litellm" in name or name.startswith("llm_provider")]
    assert not any(engine.requests() for engine in service.engines.values())
    (asked,) = provider.requests()
    assert "duoserve" not in json.dumps(asked).lower()
    assert answer.request.headers["authorization"] not in json.dumps(asked)


@pytest.mark.parametrize("model", REMOTE)
def test_streams(service: Service, model: str) -> None:
    text, usage = "", None
    stream = sdk(service).chat.completions.create(
        model=model, messages=HI, max_tokens=6, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert len(text.split()) == 6 and usage and usage.completion_tokens == 6
    hidden = service.post("/v1/chat/completions", chat(model=model, max_tokens=6, stream=True))
    assert hidden.text.rstrip().endswith("data: [DONE]") and '"usage"' not in hidden.text
    record = service.record(hidden)
    assert record["completion_tokens"] == 6 and record["ttft_ms"] > 0


@pytest.mark.parametrize("model", REMOTE)
def test_messages(service: Service, model: str) -> None:
    client = anthropic_sdk(service)
    answer = client.messages.create(model=model, messages=HI, max_tokens=5)
    assert answer.content[0].type == "text" and answer.usage.output_tokens == 5
    with client.messages.stream(model=model, messages=HI, max_tokens=5) as stream:
        assert len("".join(stream.text_stream).split()) == 5
        assert stream.get_final_message().usage.output_tokens == 5
    if model != "gemini":  # LiteLLM counts at Google's own address, whatever api_base says
        assert client.messages.count_tokens(model=model, messages=HI).input_tokens > 0


@pytest.mark.parametrize("model", REMOTE)
def test_responses(service: Service, provider: MockEngine, model: str) -> None:
    client = sdk(service)
    answer = client.responses.create(model=model, input="hi there", max_output_tokens=20)
    assert answer.output_text.strip() and answer.usage and answer.usage.output_tokens
    with client.responses.stream(model=model, input="hi there", max_output_tokens=20) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete")
    raw = service.post("/v1/responses", {"model": model, "input": "hi", "stream": True})
    assert raw.text.startswith("event: response.created\ndata: ")
    if model == "big":
        assert provider.requests()[0]["body"]["store"] is False


@pytest.mark.parametrize("model", REMOTE)
def test_tools(service: Service, provider: MockEngine, model: str) -> None:
    provider.set(tool_call={"name": "look_up", "arguments": {"word": "sky"}})
    for stream in (False, True):
        answer = service.post("/v1/chat/completions", chat(model=model, tools=[TOOL], stream=stream))
        assert answer.status_code == 200 and "look_up" in answer.text and "sky" in answer.text
    message = anthropic_sdk(service).messages.create(
        model=model,
        messages=HI,
        max_tokens=50,
        tools=[{"name": "look_up", "input_schema": SCHEMA}],
    )
    (block,) = [block for block in message.content if block.type == "tool_use"]
    assert (block.name, block.input) == ("look_up", {"word": "sky"}) and message.stop_reason == "tool_use"
    old = service.post(
        "/v1/chat/completions", chat(model=model, functions=[TOOL["function"]], function_call="auto")
    )
    assert old.json()["choices"][0]["message"]["function_call"]["name"] == "look_up"


ERRORS = [
    (400, 400, None),
    (401, 502, "provider_credentials"),
    (403, 502, "provider_credentials"),
    (404, 502, "provider_not_found"),
    (429, 503, "provider_limit"),
    (500, 503, "provider_failed"),
    (503, 503, "provider_failed"),
]


@pytest.mark.parametrize(("theirs", "ours", "code"), ERRORS)
@pytest.mark.parametrize("model", REMOTE)
def test_errors(
    service: Service, provider: MockEngine, model: str, theirs: int, ours: int, code: str | None
) -> None:
    provider.set(status=theirs, error_message=f"the words of {model}")
    for stream in (False, True):
        answer = service.post("/v1/chat/completions", chat(model=model, stream=stream))
        assert answer.status_code == ours, answer.text
        error = answer.json()["error"]
        assert error["code"] == code and not {"litellm", SECRET} & set(answer.text.lower().split())
        if ours == 400:
            assert error["message"] == f"the words of {model}"
        if ours == 503:
            assert int(answer.headers["retry-after"]) > 0
        assert "provider" in service.record(answer)["error"]
    answer = service.post("/v1/messages", {"model": model, "messages": HI, "max_tokens": 5})
    assert answer.status_code == ours and answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] in ("invalid_request_error", "api_error", "overloaded_error")
    answer = service.post("/v1/responses", {"model": model, "input": "hi"})
    assert answer.status_code == ours and "message" in answer.json()["error"]


@pytest.mark.parametrize("model", REMOTE)
def test_a_stream_that_breaks_off_says_so(service: Service, provider: MockEngine, model: str) -> None:
    provider.set(drop_at=3, itl_ms=20)
    answer = service.post("/v1/chat/completions", chat(model=model, stream=True))
    assert answer.status_code == 200 and '"code": "provider_failed"' in answer.text
    assert answer.text.rstrip().endswith("data: [DONE]")
    answer = service.post("/v1/messages", {"model": model, "messages": HI, "max_tokens": 50, "stream": True})
    assert "event: error" in answer.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", REMOTE)
async def test_a_client_that_leaves_ends_the_provider_s_work(
    service: Service, provider: MockEngine, model: str, stream: bool
) -> None:
    provider.set(itl_ms=100, completion_tokens=3000)
    async with service.client() as client:
        asking = asyncio.ensure_future(
            client.post("/v1/chat/completions", json=chat(model=model, stream=stream))
        )
        await until(lambda: provider.state()["running"] == 1, "the provider works")
        asking.cancel()
    await until(lambda: provider.state()["running"] == 0, "the provider no longer works")
    await until(lambda: service.gauge("duoserve_in_flight") == 0, "its slot is free")


async def test_requests_beyond_max_parallel_requests_wait(service: Service, provider: MockEngine) -> None:
    provider.set(itl_ms=20, completion_tokens=20)
    async with service.client() as client:
        body = chat(model="narrow")
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3
    spans = sorted((request["started_at"], request["ended_at"]) for request in provider.requests())
    assert all(ended <= started for (_, ended), (started, _) in itertools.pairwise(spans))
    metrics = ASK.get(f"{service.url}/metrics", headers=service.headers).text
    assert 'duoserve_slots{alias="narrow"} 1.0' in metrics and 'duoserve_slots{alias="big"} 10.0' in metrics
    assert 'duoserve_slots{alias="general"} 3.0' in metrics
    assert (
        'duoserve_remote{alias="narrow"} 1.0' in metrics and 'duoserve_remote{alias="coder"} 0.0' in metrics
    )


def test_an_entry_s_rpm_holds_for_all_clients_together(service: Service) -> None:
    answers = [service.post("/v1/chat/completions", chat(model="scarce")) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "2 requests per minute for 'scarce'" in answers[-1].json()["error"]["message"]
    assert int(answers[-1].headers["retry-after"]) > 0


def test_what_only_engines_take_is_left_out_and_named(service: Service, provider: MockEngine) -> None:
    more: Json = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "logit_bias": {"5": 1}, "seed": 7}
    answer = service.post("/v1/chat/completions", chat(model="claude", **more))
    assert answer.status_code == 200, answer.text
    left_out = set(answer.headers["x-duoserve-ignored"].split(", "))
    assert left_out == {"top_k", "min_p", "repetition_penalty", "logit_bias", "seed"}
    kept = service.post("/v1/chat/completions", chat(model="big", **more))
    assert provider.requests()[-1]["body"]["seed"] == 7 and "seed" not in kept.headers["x-duoserve-ignored"]
    refused = service.post(
        "/v1/chat/completions", chat(model="big", structured_outputs={"choice": ["a", "b"]})
    )
    assert refused.status_code == 400 and "response_format" in refused.json()["error"]["message"]


def test_a_remote_model_answers_for_an_engine_that_is_down(service: Service) -> None:
    service.engines["coder"].stop()
    try:
        wait_for(lambda: service.ready()["coder"] == "down", "it is down")
        for path, body in (
            ("/v1/chat/completions", chat()),
            ("/v1/messages", {"model": "coder", "messages": HI, "max_tokens": 5}),
        ):
            answer = service.post(path, body)
            assert answer.status_code == 200 and answer.headers["x-duoserve-fallback"] == "claude"
            record = service.record(answer)
            assert (record["alias"], record["fallback_from"], record["provider"]) == (
                "claude",
                "coder",
                "anthropic",
            )
    finally:
        service.engines["coder"].start()
        wait_for(lambda: service.ready()["coder"] == "ready", "it is ready")


def test_a_remote_model_answers_for_an_engine_that_dies_of_the_request(service: Service) -> None:
    service.engines["coder"].set(drop_at=0)
    answer = service.post("/v1/chat/completions", chat(stream=True))
    assert answer.status_code == 200 and answer.headers["x-duoserve-fallback"] == "claude"


def test_an_engine_answers_for_a_provider_that_does_not(service: Service) -> None:
    answer = service.post("/v1/chat/completions", chat(model="gone", stream=True))
    assert answer.status_code == 200 and answer.headers["x-duoserve-fallback"] == "general"
    record = service.record(answer)
    assert (record["alias"], record["fallback_from"], record["provider"]) == ("general", "gone", None)
    (asked,) = service.engines["general"].requests()
    assert asked["body"]["model"] == "general"


def test_a_longer_context_answers_what_does_not_fit(service: Service, provider: MockEngine) -> None:
    turns = [{"role": role, "content": "word " * 300} for role in ("user", "assistant", "user")]
    answer = service.post("/v1/chat/completions", {"model": "general", "messages": turns})
    assert answer.status_code == 200 and answer.headers["x-duoserve-fallback"] == "claude"
    assert "x-duoserve-truncated-messages" not in answer.headers
    assert len(provider.requests()[-1]["body"]["messages"]) == 3
    short = service.post("/v1/chat/completions", chat(model="general"))
    assert "x-duoserve-fallback" not in short.headers


def test_what_is_far_beyond_an_engine_s_context_is_not_even_counted(service: Service) -> None:
    """Though a remote model's context is long enough for it."""
    engine, text = service.engines["coder"], "word " * 300_000
    engine.set(record_tokenize=True)
    messages = [{"role": "user", "content": text}]
    for path, body in (
        ("/v1/chat/completions", {"messages": messages}),
        ("/v1/messages", {"messages": messages, "max_tokens": 5}),
        ("/v1/messages/count_tokens", {"messages": messages}),
        ("/v1/responses", {"input": text}),
        ("/v1/responses/input_tokens", {"input": text}),
        ("/v1/completions", {"prompt": text}),
    ):
        answer = service.post(path, {"model": "coder", **body})
        assert answer.status_code == 400 and "maximum context length" in answer.text, path
        assert service.record(answer)["error"] == "context_length"
    assert not engine.requests()
    assert service.post("/v1/chat/completions", {"model": "big", "messages": messages}).status_code == 400


def test_a_mistake_of_the_client_is_no_reason_to_ask_another(service: Service, provider: MockEngine) -> None:
    answer = service.post("/v1/chat/completions", chat('mock:{"status": 400}'))
    assert answer.status_code == 400 and "x-duoserve-fallback" not in answer.headers
    assert not provider.requests()


def test_every_list_says_which_models_are_remote(service: Service) -> None:
    listed = ASK.get(f"{service.url}/v1/models", headers=service.headers).json()["data"]
    models = {model["id"]: model for model in listed}
    assert {name for name, model in models.items() if model["remote"]} == {
        *("big", "claude", "gemini", "narrow", "scarce", "gone", "hard", "vectors")
    }
    assert models["claude"]["owned_by"] == "anthropic" and models["coder"]["owned_by"] == "duoserve"
    assert models["hard"]["max_model_len"] == 5000 and models["big"]["max_model_len"] > 5000
    ready = ASK.get(f"{service.url}/ready").json()["models"]
    assert ready["claude"]["state"] == "ready" and "anthropic" in ready["claude"]["reason"]


@pytest.mark.parametrize("model", ["coder", "claude"])
@pytest.mark.parametrize("stream", [False, True])
def test_callbacks_hear_of_every_answer_once_without_its_prompt(
    service: Service, model: str, stream: bool
) -> None:
    prompt = f"a secret of {model}"
    body = chat(prompt, model, stream=stream, max_tokens=5)
    answer = service.post("/v1/chat/completions", body, **{"x-client-id": "alice"})
    assert answer.status_code == 200
    (told,) = wait_for(lambda: heard(service), "the callback was called")
    assert (told["what"], told["group"], told["client"]) == ("success", model, "alice")
    assert told["key"] == service.record(answer)["key"]
    assert told["completion_tokens"] == 5 and told["prompt_tokens"] > 0 and told["seconds"] > 0
    assert prompt not in told["all"]
    failed = service.post("/v1/chat/completions", chat('mock:{"status": 400}', model))
    assert failed.status_code == 400
    wait_for(lambda: [each["what"] for each in heard(service)] == ["success", "failure"], "and again")


def test_no_secret_and_no_prompt_is_in_a_log(service: Service) -> None:
    for model in ("claude", "big"):
        service.post("/v1/chat/completions", chat("a very private prompt", model))
        service.post("/v1/chat/completions", chat('mock:{"status": 401} very private', model))
    written = service.log() + "".join(map(str, service.records()))
    assert SECRET not in written and "very private" not in written
