"""`./run eval fim|code`: the share of small problems that a model solves, by running its solutions."""

import argparse
import json
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from services.evaluation.sandbox import passes

Problem = dict[str, str]
PROBLEMS = Path(__file__).with_name("problems.yaml")


def main() -> int:
    """Run the evaluation; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="./run eval",
        description="The share of small problems that a model solves; it runs what it writes.",
    )
    parser.add_argument("suite", choices=["fim", "code"], help="fill in the middle, or write functions")
    parser.add_argument("--model", default="coder", help="published name of the model (default: coder)")
    arguments = parser.parse_args()
    groups: dict[str, list[Problem]] = yaml.safe_load(PROBLEMS.read_text())[arguments.suite]
    table = Table("kind", "solved", "not solved", box=None, header_style="bold")
    solved_all = 0
    for kind, problems in groups.items():
        solved = []
        for number, problem in enumerate(problems, 1):
            print(f"\r{kind}: {number}/{len(problems)}", end="", file=sys.stderr, flush=True)
            try:
                program = solution(arguments.suite, arguments.model, problem)
            except (OSError, ValueError, KeyError) as error:
                print(f"\nduoserve: {_reason(error)}", file=sys.stderr)
                return 1
            if passes(f"{program}\n{problem['check']}\n"):
                solved.append(problem["name"])
        print(file=sys.stderr)
        missed = [problem["name"] for problem in problems if problem["name"] not in solved]
        table.add_row(kind, f"{len(solved)} of {len(problems)}", ", ".join(missed))
        solved_all += len(solved)
    Console().print(table)
    total = sum(len(problems) for problems in groups.values())
    print(f"{arguments.model}: {solved_all / total:.0%} of {total}")
    return 0


def solution(suite: str, model: str, problem: Problem) -> str:
    """The program that the model makes of the problem. Greedy, so that the same model does the same again.

    Raises:
        OSError: the service cannot be reached, or refuses.
        ValueError, KeyError: its answer is not one of this API.
    """
    if suite == "fim":
        body = {"prompt": problem["prefix"], "suffix": problem["suffix"], "max_tokens": 128}
        answer = _ask("/v1/completions", model, body)["choices"][0]["text"]
        return problem["prefix"] + _fitting(answer, problem["suffix"]) + problem["suffix"]
    content = f"{problem['ask']} Answer with the code alone."
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 512}
    answer = _ask("/v1/chat/completions", model, body)["choices"][0]["message"]["content"] or ""
    fenced = re.search(r"```(?:python)?\n(.*?)```", answer, re.S)
    return str(fenced.group(1) if fenced else answer)


def _fitting(answer: str, suffix: str) -> str:
    """An editor takes one line where the rest of the line is already there."""
    return answer if suffix.startswith((" " * 4, "\t", "\n")) and "\n" in answer else answer.split("\n")[0]


def _ask(path: str, model: str, body: dict[str, Any]) -> Any:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(os.environ["BIND_ADDRESS"], os.environ["BIND_ADDRESS"])  # noqa: S104
    request = urllib.request.Request(
        f"http://{f'[{host}]' if ':' in host else host}:{os.environ['ROUTER_PORT']}{path}",
        json.dumps({"model": model, "temperature": 0, **body}).encode(),
        {
            "content-type": "application/json",
            "authorization": f"Bearer {os.environ['LITELLM_MASTER_KEY']}",
        },
    )
    with urllib.request.urlopen(request, timeout=300) as response:  # noqa: S310
        return json.load(response)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return str(json.loads(error.read())["error"]["message"])
    return f"the service does not answer ({error}); start it with ./run up."


if __name__ == "__main__":
    sys.exit(main())
