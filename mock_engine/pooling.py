"""Answers of vLLM's pooling runner: embeddings, and documents in the order of their relevance.

The vector of a text counts its tokens, so that texts with the same words are near each other.
"""

from __future__ import annotations

import base64
import math
import struct
import time
from typing import Any

from mock_engine.prompts import Json, tokenize

PATHS = ("/v1/embeddings", "/v1/rerank")
SIZE = 32  # of a vector, unless `dimensions` asks for another


def pooled(path: str, body: Json, limit: int, serial: int, model: str) -> Json:
    """The answer to a request. ValueError if a text has more than `limit` tokens and is not to be cut."""
    most = body.get("truncate_prompt_tokens")
    if path == "/v1/embeddings":
        texts = [_tokens(text, most, limit) for text in _texts(body["input"])]
        vectors = [_vector(tokens, body.get("dimensions") or SIZE) for tokens in texts]
        count = sum(map(len, texts))
        as_text = body.get("encoding_format") == "base64"
        data = [
            {"index": i, "object": "embedding", "embedding": _encoded(vector) if as_text else vector}
            for i, vector in enumerate(vectors)
        ]
        return {
            "id": f"embd-{serial}",
            "object": "list",
            "created": int(time.time()),
            "model": model,
            "data": data,
            "usage": {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0},
        }
    query = _tokens(body["query"], most, limit)
    documents = [_tokens(text, most, limit) for text in body["documents"]]
    count = sum(len(query) + len(document) for document in documents)
    scores = [_similarity(_vector(query), _vector(document)) for document in documents]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.get("top_n") or None]
    return {
        "id": f"score-{serial}",
        "model": model,
        "usage": {"prompt_tokens": count, "total_tokens": count},
        "results": [
            {"index": i, "document": {"text": body["documents"][i]}, "relevance_score": scores[i]}
            for i in order
        ],
    }


def _texts(given: Any) -> list[Any]:
    return [given] if isinstance(given, str) or isinstance(given[0], int) else given


def _tokens(text: str | list[int], most: int | None, limit: int) -> list[int]:
    tokens = tokenize(text) if isinstance(text, str) else text
    if most is not None:
        tokens = tokens[: limit if most < 0 else most]
    if len(tokens) > limit:
        raise ValueError(f"This model's maximum context length is {limit} tokens. Please reduce the input.")
    return tokens


def _vector(tokens: list[int], size: int = SIZE) -> list[float]:
    counts = [0.001] * size  # no number of a real one is 0
    for token in tokens:
        counts[token % size] += 1.0
    length = math.hypot(*counts) or 1.0
    return [value / length for value in counts]


def _similarity(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _encoded(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
