"""How good the answers of a configuration are, held against those of a reference.

Perplexity on this project's documentation and programs, with its standard error, and what the variant says
after the reference's own answers to a fixed list of questions. `same answers` counts those that are the same
for all of their first 32 tokens. One near tie changes everything after it, and batching alone turns some:
the reference's own answers when five are asked at once are a row of their own. So `same next token`, which
judges each token after the reference's own words, says more. Last, ten questions that one word answers
(samples/questions.txt), asked greedily: how many answers of 40 tokens have that word.
"""

import asyncio
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from services.engine.embedded_model import ROOT
from services.engine.server import Engine

SAMPLES = Path(__file__).parent / "samples"
# What perplexity is measured on: no model has learnt it. 8 bits make some tokens likelier and others less so;
# after 755 tokens, the mean is known to 0.5 %, after 7,000 to 0.16 %.
READ = {
    "text": ("docs/architecture.md", "docs/chat-app.md", "docs/agents.md"),
    "code": ("services/engine/precision.py", "services/engine/tuning.py", "services/engine/server.py"),
}
CHARACTERS, PIECE = 30_000, 6_000  # of each, and read at once
ANSWER = 32  # tokens of an answer that are compared
# The quality guard: the most that perplexity may grow, the least share of the same next token, and the least
# number of right answers beyond the reference's.
LIMITS = {"text": 1.0, "code": 1.0, "next": 93.0, "right": -1.0}


@dataclass
class Answers:
    """What an engine answers greedily, as token ids, and its loss for each token of what it reads, nats."""

    tokens: list[list[int]]
    loss: dict[str, list[float]] = field(default_factory=dict)


async def answer(engine: Engine, questions: list[list[int]], together: int) -> list[list[int]]:
    """The greedy answers as token ids, so many at a time."""
    places = asyncio.Semaphore(together)

    async def one(question: list[int]) -> list[int]:
        async with places:
            choice = await engine.complete(question, ANSWER, return_token_ids=True, ignore_eos=True)
            return list(choice["token_ids"])

    return list(await asyncio.gather(*map(one, questions)))


async def next_tokens(engine: Engine, questions: list[list[int]], answers: list[list[int]]) -> float:
    """The share of the tokens of `answers` that this engine would have said next."""
    agree = total = 0
    for question, tokens in zip(questions, answers, strict=True):
        choice = await engine.complete(question + tokens, 1, prompt_logprobs=1)
        for token, ranked in zip(tokens, choice["prompt_logprobs"][len(question) :], strict=True):
            agree += bool(ranked[str(token)]["rank"] == 1)
            total += 1
    return agree / total


async def loss(engine: Engine, text: str) -> list[float]:
    """Negative log-likelihood of each token of `text`, nats; each PIECE is read without the one before."""
    losses: list[float] = []
    for start in range(0, len(text), PIECE):
        ranked = await engine.complete(
            text[start : start + PIECE], 1, prompt_logprobs=0, return_token_ids=True
        )
        read = zip(ranked["prompt_token_ids"][1:], ranked["prompt_logprobs"][1:], strict=True)
        losses += [-position[str(token)]["logprob"] for token, position in read]
    return losses


async def questions(engine: Engine) -> list[list[int]]:
    """The fixed questions as the model's chat template puts them, as token ids."""
    result: list[list[int]] = []
    for line in (SAMPLES / "prompts.txt").read_text().splitlines():
        body = {"model": engine.model, "messages": [{"role": "user", "content": line}]}
        response = await engine.client.post("/tokenize", json=body)
        response.raise_for_status()
        result.append(response.json()["tokens"])
    return result


async def right_answers(engine: Engine) -> int:
    """How many of the ten questions are answered with the word that they ask for."""
    right = 0
    for line in (SAMPLES / "questions.txt").read_text().splitlines():
        question, _, words = line.partition(" = ")
        body = {
            "model": engine.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 40,
        }
        response = await engine.client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        said = response.json()["choices"][0]["message"]["content"].lower()
        right += any(word.lower() in said for word in words.split(", "))
    return right


async def measure_quality(engine: Engine, reference: Answers | None, row: dict[str, float]) -> Answers:
    """Fill `row` with how good the answers are; returns them."""
    asked = await questions(engine)
    answers = Answers(await answer(engine, asked, 1))
    for name, files in READ.items():
        text = "\n".join((ROOT / file).read_text() for file in files)[:CHARACTERS]
        answers.loss[name] = await loss(engine, text)
    reference = reference or answers
    compare(row, answers, reference)
    row["next"] = await next_tokens(engine, asked, reference.tokens) * 100
    row["right"] = await right_answers(engine)
    return answers


def compare(row: dict[str, float], answers: Answers, reference: Answers) -> None:
    """Put into `row` how far `answers` are from those of the reference."""
    for name, losses in answers.loss.items():
        more = [mine - theirs for mine, theirs in zip(losses, reference.loss[name], strict=True)]
        row[name] = math.expm1(statistics.mean(more)) * 100
        row[f"{name}_error"] = statistics.stdev(more) / math.sqrt(len(more)) * 100
    same = [mine == theirs for mine, theirs in zip(answers.tokens, reference.tokens, strict=True)]
    row["same"] = statistics.mean(same) * 100


def too_bad(rows: dict[str, dict[str, float]]) -> list[str]:
    """Each figure that is worse than LIMITS allow, in words."""
    reference = next(iter(rows.values()))
    lines = []
    for name, row in rows.items():
        for key, limit in LIMITS.items():
            value = row.get(key, 0) - (reference["right"] if key == "right" else 0)
            if key in row and (value > limit if key in ("text", "code") else value < limit):
                lines.append(f"{name}: {key} {value:.2f}, the limit is {limit:g}")
    return lines
