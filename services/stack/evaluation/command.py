"""`./run eval fim|code`: the share of small coding problems a model solves, by running its solutions.

`./run eval lossless` is in lossless.py, `./run eval votes` in votes.py.
"""

import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.table import Table

from services.stack.client import client
from services.stack.evaluation.lossless import lossless
from services.stack.evaluation.sandbox import passes
from services.stack.evaluation.votes import votes
from services.stack.failure import Failure
from services.stack.settings import KEY, load

Problem = dict[str, str]
# Sends a request's body to a path, and returns the first of the answer's choices.
Ask = Callable[[str, dict[str, Any]], Any]
PROBLEMS = Path(__file__).with_name("problems.yaml")
TIMEOUT = 300.0  # seconds


def evaluate(
    suite: str, model: str | None, profile: str | None, option: str | None, file: str | None = None
) -> int:
    """Carry out one of the suites; returns the exit status.

    Raises:
        Failure: an engine or the service does not answer, or refuses.
    """
    if suite == "votes":
        return votes(file)
    if suite == "lossless":
        return lossless(model, profile, option)
    if profile or option:
        raise Failure(f"--profile and --option are for lossless; {suite} asks the running service.")
    return solved(suite, model)


def solved(suite: str, model: str | None) -> int:
    """Print the share of the problems in `suite` that `model`, or the first one, solves; returns 0.

    Raises:
        Failure: the service does not answer, or refuses.
    """
    settings = load()
    model = model or settings.chat_models[0]
    ask = partial(_ask, settings.variables, model)
    groups: dict[str, list[Problem]] = yaml.safe_load(PROBLEMS.read_text())[suite]
    table = Table("kind", "solved", "not solved", box=None, header_style="bold")
    solved_all = 0
    for kind, problems in groups.items():
        right = []
        try:
            for number, problem in enumerate(problems, 1):
                print(f"\r{kind}: {number}/{len(problems)}", end="", file=sys.stderr, flush=True)
                if passes(f"{solution(suite, problem, ask)}\n{problem['check']}\n"):
                    right.append(problem["name"])
        finally:
            print(file=sys.stderr)  # ends the line with the progress
        missed = [problem["name"] for problem in problems if problem["name"] not in right]
        table.add_row(kind, f"{len(right)} of {len(problems)}", ", ".join(missed))
        solved_all += len(right)
    Console().print(table)
    total = sum(len(problems) for problems in groups.values())
    print(f"{model}: {solved_all / total:.0%} of {total}")
    return 0


def solution(suite: str, problem: Problem, ask: Ask) -> str:
    """The program that a model makes of the problem, when it is asked with `ask`."""
    if suite == "fim":
        body = {"prompt": problem["prefix"], "suffix": problem["suffix"], "max_tokens": 128}
        answer = ask("/v1/completions", body)["text"]
        return problem["prefix"] + _fitting(answer, problem["suffix"]) + problem["suffix"]
    content = f"{problem['ask']} Answer with the code alone."
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 512}
    answer = ask("/v1/chat/completions", body)["message"]["content"] or ""
    fenced = re.search(r"```(?:python)?\n(.*?)```", answer, re.S)
    return str(fenced.group(1) if fenced else answer)


def _fitting(answer: str, suffix: str) -> str:
    """The part that an editor accepts: one line, if the rest of the line is already there."""
    return answer if suffix.startswith((" " * 4, "\t", "\n")) and "\n" in answer else answer.split("\n")[0]


def _ask(settings: Mapping[str, str], model: str, path: str, body: dict[str, Any]) -> Any:
    try:
        key = {"authorization": f"Bearer {settings[KEY]}"}
        with client(settings["ROUTER_URL"], headers=key, timeout=TIMEOUT) as asked:
            # Greedy, so that a model gives the same answer every time.
            greedy = {"model": model, "temperature": 0, **body}
            answer = asked.post(f"{settings['ROUTER_URL']}{path}", json=greedy)
        if answer.is_error:
            raise Failure(str(answer.json()["error"]["message"]))
        return answer.json()["choices"][0]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise Failure(f"the service does not answer ({error}); start it with ./run up.") from None
