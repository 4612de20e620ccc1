"""Embeddings and reranking by an engine of vLLM's pooling runner, beside coder and general."""

import asyncio
import base64
import contextlib
import http.client
import json
import math
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml
from openai import OpenAI

from tests.support import ROOT
from tests.support.service import ASK, KEY, Service, chat
from tests.support.waiting import PATIENCE, until, wait_for

Json = dict[str, Any]
PATH = "/v1/embeddings"
WINDOW, SLOTS, QUEUE_MAX = 64, 4, 3
TEXTS = ["def add(a, b): return a + b", "the cat sat on the mat", "a cat sat on a mat"]


def with_embedding(folder: Path, queue_max: int = QUEUE_MAX, **settings: Any) -> Service:
    """A service with a third model, for embeddings."""
    config = yaml.safe_load((ROOT / "config" / "litellm.yaml").read_text())
    path = folder / "litellm.yaml"
    running = Service(folder, litellm_config=path, queue_max=queue_max, **settings)
    engine = running.engines["embedding"] = running.engine("embedding", WINDOW)
    values = {"model": "a/b-embedding", "runner": "pooling", "max-num-seqs": SLOTS, "max-model-len": WINDOW}
    values["hf-overrides"] = {"matryoshka_dimensions": [16, 32]}
    (folder / "profile" / "embedding.yaml").write_text(yaml.safe_dump(values))
    parameters = {"model": "hosted_vllm/embedding", "api_base": engine.url}
    config["model_list"].append({"model_name": "embedding", "litellm_params": parameters})
    path.write_text(yaml.safe_dump(config))
    return running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = with_embedding(tmp_path_factory.mktemp("embeddings"))
    with service:
        yield service


def vectors(answer: Json) -> list[list[float]]:
    assert [entry["index"] for entry in answer["data"]] == list(range(len(answer["data"])))
    return [entry["embedding"] for entry in answer["data"]]


def test_texts_and_tokens_alone_and_together(service: Service) -> None:
    given: list[Any] = [TEXTS[0], TEXTS, [5, 6, 7], [[5, 6, 7], [8, 9]]]
    answers = [service.post(PATH, {"model": "embedding", "input": each}) for each in given]
    assert [answer.status_code for answer in answers] == [200] * 4
    one, several, tokens, lists = (vectors(answer.json()) for answer in answers)
    assert several[0] == one[0] and len(several) == 3 and lists[0] == tokens[0] and len(lists) == 2
    assert [request["body"]["input"] for request in service.engines["embedding"].requests()] == given


def test_openais_client_gets_the_numbers_as_base64(service: Service) -> None:
    client = OpenAI(base_url=f"{service.url}/v1", api_key=KEY, http_client=ASK)
    answer = client.embeddings.create(model="embedding", input=TEXTS, user="ann", dimensions=32)
    sent = service.engines["embedding"].requests()[-1]["body"]
    assert (sent["encoding_format"], sent["dimensions"]) == ("base64", 32)
    plain = service.post(PATH, {"input": TEXTS[0], "encoding_format": "float"}).json()
    assert answer.data[0].embedding == pytest.approx(plain["data"][0]["embedding"], abs=1e-6)
    raw = service.post(PATH, {"input": TEXTS[0], "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert list(struct.unpack("<32f", base64.b64decode(raw))) == pytest.approx(answer.data[0].embedding)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_tokens_are_counted_in_log_and_metrics(service: Service) -> None:
    def counted() -> float:
        text = ASK.get(f"{service.url}/metrics", headers=service.headers).text
        name = 'duoserve_tokens_total{alias="embedding",kind="prompt"} '
        return float(text.partition(name)[2].split()[0])

    before = counted()
    answer = service.post(PATH, {"input": TEXTS, "user": "ann"})
    record = service.record(answer)
    assert record["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"] == counted() - before
    assert (record["alias"], record["path"], record["client"]) == ("embedding", PATH, "ann")
    assert (record["stream"], record["ttft_ms"]) == (False, None)
    assert TEXTS[1] not in str(service.records())


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "input", "required"),
        ({"input": []}, "input", "at least 1"),
        ({"input": [[]]}, "input", "at least 1"),
        ({"input": [1, "a"]}, "input", "valid"),
        ({"input": [-1]}, "input", "greater"),
        ({"input": {"text": "a"}}, "input", "valid"),
        ({"input": ["a"] * 2049}, "input", "2,048"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "float"),
        ({"input": "a", "dimensions": 0}, "dimensions", "greater"),
        ({"input": "a", "stream": True}, "stream", "False"),
        ({"input": "a", "temperature": 1}, "temperature", "not a parameter"),
        ({"input": "a", "model": "coder"}, "model", "use 'embedding'"),
    ],
)
def test_what_is_refused_names_the_parameter(service: Service, body: Json, param: str, words: str) -> None:
    answer = service.post(PATH, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param) and words in error["message"], error
    assert service.engines["embedding"].requests() == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
def test_a_model_for_embeddings_does_not_chat(service: Service, path: str) -> None:
    whole = chat() | {"prompt": "a", "input": "a", "max_tokens": 5, "model": "embedding"}
    needed = {"/v1/completions": ["prompt"], "/v1/responses": ["input"]}.get(path, ["messages", "max_tokens"])
    answer = service.post(path, {name: whole[name] for name in ("model", *needed)})
    assert answer.status_code == 400 and "use 'coder' or 'general'" in answer.json()["error"]["message"]


def test_texts_that_are_too_long_are_cut_and_a_header_says_so(service: Service) -> None:
    answer = service.post(PATH, {"input": ["short", "long " * 500]})
    assert answer.headers["x-duoserve-set"] == f"truncate_prompt_tokens={WINDOW}"
    assert answer.json()["usage"]["prompt_tokens"] == 1 + WINDOW
    assert "x-duoserve-set" not in service.post(PATH, {"input": "short"}).headers
    chosen = service.post(PATH, {"input": "long " * 500, "truncate_prompt_tokens": 10})
    assert chosen.json()["usage"]["prompt_tokens"] == 10


def test_a_batch_may_be_longer_than_any_context(service: Service) -> None:
    answer = service.post(PATH, {"input": ["some code " * 20] * 2048})
    assert len(answer.json()["data"]) == 2048
    more = service.post(PATH, {"input": ["some code " * 500] * 2000})
    assert more.status_code == 413 and "Send fewer" in more.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_documents_in_the_order_of_their_relevance(service: Service, path: str) -> None:
    body = {"query": "cat mat", "documents": [TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]], "top_n": 2}
    answer = service.post(path, body | {"return_documents": True})
    assert "x-duoserve-ignored" not in answer.headers
    content = answer.json()
    assert {result["index"] for result in content["results"]} == {1, 2}
    assert content["results"][0]["relevance_score"] >= content["results"][1]["relevance_score"] > 0
    assert content["results"][0]["document"]["text"] in TEXTS
    record = service.record(answer)
    assert (record["path"], record["prompt_tokens"]) == ("/v1/rerank", content["usage"]["total_tokens"])


def test_what_reranking_does_not_have(service: Service) -> None:
    body = {"model": "embedding", "query": "cat", "documents": TEXTS}
    left_out = service.post("/v1/rerank", body | {"return_documents": False, "max_chunks_per_doc": 10})
    assert left_out.headers["x-duoserve-ignored"] == "return_documents, max_chunks_per_doc"
    ranked = service.post("/v1/rerank", body | {"rank_fields": ["title"]})
    assert ranked.status_code == 400 and ranked.json()["error"]["param"] == "rank_fields"
    for documents in ([], ["a", 1], [{"title": "a"}]):
        answer = service.post("/v1/rerank", body | {"documents": documents})
        assert answer.json()["error"]["param"] == "documents"
    assert service.post("/v1/rerank", body | {"model": "coder"}).json()["error"]["param"] == "model"


async def test_indexing_takes_no_place_from_whoever_types(service: Service) -> None:
    slow = 'mock:{"ttft_ms": 60000}'
    batch = {"input": [*TEXTS, "and one more", slow]}  # more texts than slots: it takes all of them
    async with service.client() as client:
        indexing = [asyncio.create_task(client.post(PATH, json=batch)) for _ in range(1 + QUEUE_MAX)]
        await until(lambda: service.gauge("duoserve_waiting") == QUEUE_MAX, "its queue is full")
        refused = await client.post(PATH, json=batch)
        assert refused.status_code == 429 and "retry-after" in refused.headers
        # The other models have all their slots, and all places in their queue.
        asking = [
            asyncio.create_task(client.post("/v1/chat/completions", json=chat(slow)))
            for _ in range(SLOTS + QUEUE_MAX)
        ]
        await until(lambda: service.gauge("duoserve_waiting") == 2 * QUEUE_MAX, "they wait, too")
        assert not any(task.done() for task in asking)
        for task in (*indexing, *asking):
            task.cancel()
        await until(lambda: service.engines["embedding"].state()["running"] == 0, "the engine is free")


async def test_a_search_comes_before_the_batches_that_wait(service: Service) -> None:
    async with service.client() as client:
        holding = [*TEXTS, 'mock:{"ttft_ms": 60000}']
        asking = []
        for number, texts in enumerate((holding, [*TEXTS, "a batch"], "a search")):
            asking.append(asyncio.create_task(client.post(PATH, json={"input": texts})))
            await until(
                lambda number=number: (
                    service.gauge("duoserve_in_flight") == SLOTS
                    and service.gauge("duoserve_waiting") == number
                ),
                "it has come",
            )
        asking.pop(0).cancel()
        await asyncio.gather(*asking)
    served = [request["body"]["input"] for request in service.engines["embedding"].requests()]
    assert served == [holding, "a search", [*TEXTS, "a batch"]]


@contextlib.contextmanager
def indexing(service: Service) -> Iterator[None]:
    """Meanwhile a client has a repository indexed, eight batches at a time, each answered with 1.5 MB."""
    batch = {"input": ["def add(a, b): return a + b\n" * 40] * 64, "dimensions": 1024, "user": "indexer"}
    content, done = json.dumps(batch), threading.Event()

    def index() -> None:
        # Not httpx, whose work on the answers would delay those who are measured in this process.
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
        while not done.is_set():
            connection.request("POST", PATH, content, service.headers | {"content-type": "application/json"})
            answer = connection.getresponse()
            assert answer.status == 200 and len(answer.read()) > 1_000_000
        connection.close()

    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(index) for _ in range(8)]
        try:
            yield
        finally:
            done.set()
    for worker in workers:
        worker.result()


def seconds_to_first_token(service: Service, path: str, body: Json) -> float:
    body = {"model": "coder", "stream": True, "max_tokens": 1, **body}
    began = time.perf_counter()
    with ASK.stream("POST", f"{service.url}{path}", json=body, headers=service.headers) as answer:
        next(answer.iter_raw())
        took = time.perf_counter() - began
        assert answer.status_code == 200
    return took


def medians_and_tails(service: Service) -> list[float]:
    """Of the TTFT of somebody who types, and of somebody who chats: the median and the 95th percentile."""
    typed: Json = {"prompt": "def f(", "suffix": "\n", "user": "typist"}
    found = []
    for path, body in (("/v1/completions", typed), ("/v1/chat/completions", chat(user="reader"))):
        took = sorted(seconds_to_first_token(service, path, body) for _ in range(20))
        found += [median(took), took[18]]
    return found


def test_indexing_delays_nobody_who_types_or_chats(tmp_path: Path) -> None:
    """TTFT rises by half at most, in the best of several rounds with and without."""
    with with_embedding(tmp_path, queue_max=100) as service:
        service.engines["embedding"].set(ttft_ms=100)
        service.engines["coder"].set(ttft_ms=50)
        alone = beside = [math.inf] * 4
        ratios: list[float] = []
        for _ in range(10):
            alone = list(map(min, alone, medians_and_tails(service)))
            with indexing(service):
                beside = list(map(min, beside, medians_and_tails(service)))
            ratios = [b / a for a, b in zip(alone, beside, strict=True)]
            if max(ratios) <= 1.5:
                break
        assert max(ratios) <= 1.5, (ratios, alone, beside)


def test_it_is_listed_as_what_it_is(service: Service) -> None:
    listed = ASK.get(f"{service.url}/v1/models", headers=service.headers).json()["data"]
    modes = {model["id"]: model["mode"] for model in listed if model["id"] == model["root"]}
    assert modes == {"coder": "chat", "general": "chat", "embedding": "embedding"}
    sizes = {model["root"]: model["output_vector_size"] for model in listed}
    assert sizes == {"coder": None, "general": None, "embedding": 32}


def test_an_engine_that_is_down(service: Service) -> None:
    service.engines["embedding"].stop()
    wait_for(lambda: service.ready()["embedding"] == "down", "it is down")
    answer = service.post(PATH, {"input": "a"})
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "model_down"
    assert service.post("/v1/chat/completions", chat()).status_code == 200
    service.engines["embedding"].start()
    wait_for(lambda: service.ready()["embedding"] == "ready", "it is ready")
