"""The packaged model for embeddings in real vLLM, beside coder and general."""

import base64
import json
import struct
import subprocess
from typing import Any

import httpx
import pytest

from services.stack.environments import BY_NAME, ROOT
from tests.support.stack import Stack

# In pairs of the same meaning, with few words in common.
SENTENCES = [
    "The cat is asleep on the sofa.",
    "A kitten naps on the couch.",
    "How do I read a file line by line in Python?",
    "for line in open(path): print(line)",
    "The stock market fell sharply on Monday.",
    "Share prices dropped at the start of the week.",
    "Water boils at one hundred degrees Celsius.",
    "The boiling point of water is 212 Fahrenheit.",
    "She won the marathon in record time.",
    "The runner finished the long race faster than anyone before.",
]
# What sentence-transformers does with the model: the mean of its tokens' vectors, with the length 1.
REFERENCE = """
import json, sys, torch
from transformers import AutoModel, AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokens = AutoTokenizer.from_pretrained(folder)(
    texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
)
with torch.no_grad():
    states = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state
mask = tokens["attention_mask"].unsqueeze(-1)
means = (states * mask).sum(1) / mask.sum(1)
print("VECTORS" + json.dumps(torch.nn.functional.normalize(means).tolist()))
"""
LONG = "A long text about nothing in particular. " * 100


def ask(stack: Stack, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{stack.url}{path}", json=body, headers=stack.headers, timeout=300)


def vectors(stack: Stack, **body: Any) -> list[Any]:
    answer = ask(stack, "/v1/embeddings", {"model": "embedding", **body})
    assert answer.status_code == 200, answer.text
    return [entry["embedding"] for entry in answer.json()["data"]]


def test_vectors_are_those_of_the_models_authors(stack: Stack) -> None:
    texts = [*SENTENCES, LONG]  # the last is cut
    command = [str(BY_NAME["engine"].python), "-c", REFERENCE, "models/all-minilm-l6-v2", json.dumps(texts)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = json.loads(done.stdout.partition("VECTORS")[2])
    for got, wanted in zip(vectors(stack, input=texts), expected, strict=True):
        assert len(got) == 384 and max(abs(a - b) for a, b in zip(got, wanted, strict=True)) < 1e-3


def test_the_nearest_of_ten_sentences_is_the_one_that_means_the_same(stack: Stack) -> None:
    found = vectors(stack, input=SENTENCES)
    for number, one in enumerate(found):
        nearness = [sum(a * b for a, b in zip(one, other, strict=True)) for other in found]
        nearness[number] = -1.0
        assert nearness.index(max(nearness)) == number ^ 1, SENTENCES[number]


def test_every_form_of_the_request_gives_the_same_numbers(stack: Stack) -> None:
    text = SENTENCES[0]
    (plain,) = vectors(stack, input=text)
    (encoded,) = vectors(stack, input=[text], encoding_format="base64", dimensions=384)
    assert list(struct.unpack("<384f", base64.b64decode(encoded))) == pytest.approx(plain, abs=1e-4)
    tokens = httpx.post(
        f"{stack.engines['embedding']}/tokenize", json={"model": "embedding", "prompt": text}
    ).json()["tokens"]
    assert vectors(stack, input=[tokens, tokens])[1] == pytest.approx(plain, abs=1e-4)


def test_what_the_model_cannot_do_is_said(stack: Stack) -> None:
    answer = ask(stack, "/v1/embeddings", {"model": "embedding", "input": "a", "dimensions": 100})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "dimensions")
    assert "not supported" in error["message"] and "384" in error["message"]
    cut = ask(stack, "/v1/embeddings", {"model": "embedding", "input": LONG})
    assert cut.headers["x-duoserve-set"] == "truncate_prompt_tokens=256"
    assert cut.json()["usage"]["prompt_tokens"] == 256


def test_a_large_batch_is_answered_whole(stack: Stack) -> None:
    texts = [f"text number {number}" for number in range(600)]
    found = vectors(stack, input=texts)
    assert len(found) == 600
    assert found[599] == pytest.approx(vectors(stack, input=texts[599])[0], abs=1e-3)


def test_documents_are_ordered_by_relevance(stack: Stack) -> None:
    body = {"model": "embedding", "query": SENTENCES[0], "documents": SENTENCES[1:], "top_n": 1}
    (best,) = ask(stack, "/v2/rerank", body).json()["results"]
    assert best["index"] == 0 and best["document"]["text"] == SENTENCES[1]


def test_it_gives_way_to_the_engines_that_write(stack: Stack) -> None:
    nice = {
        name: max(p.nice() for p in stack.processes(name) if "EngineCore" in " ".join(p.cmdline()))
        for name in ("coder", "embedding")
    }
    assert nice["embedding"] == nice["coder"] + 10


def test_it_is_part_of_the_service(stack: Stack) -> None:
    status = stack.status()
    assert status["services"]["embedding"]["state"] == status["models"]["embedding"] == "ready"
    listed = httpx.get(f"{stack.url}/v1/models", headers=stack.headers).json()["data"]
    assert {model["id"]: model["mode"] for model in listed}["embedding"] == "embedding"
