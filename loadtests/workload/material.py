"""Prompts: realistic Python files and the questions developers ask about them, the same for the same seed.

No two files are alike, so the engine's prefix cache helps exactly where it does in real use (the next turn of
a conversation, the next keystroke in a file) and nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

Message = dict[str, Any]

ENTITIES = (
    "Invoice Order Customer Shipment Ticket Booking Sensor Reading Account Payment Product Supplier "
    "Contract Session Device Report Message Employee Vehicle Route Patient Lesson Recipe Playlist Permit "
    "Warehouse Parcel Claim"
)
FIELDS = "title status owner region category summary label channel priority currency grade origin comment"
VERBS = "load import collect refresh publish archive audit replay"

IMPORTS = """\
from __future__ import annotations

import argparse
import asyncio
import csv
import logging
import math
import os
import sqlite3
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
"""

QUESTIONS = (
    "What does this function do when its input is empty, and is that what a caller would expect?",
    "Please write a unit test with pytest for the error path of this code.",
    "Explain this code to somebody who joined the team today, in three short paragraphs.",
    "Is there a race condition in here? If so, show the smallest change that removes it.",
    "Rewrite this so that it works on an iterator instead of a list, and say what changes for the caller.",
    "Add type hints where they are missing and explain the less obvious ones.",
)
FOLLOW_UPS = (
    "Can you show that as code?",
    "Now make it handle a missing file as well.",
    "Why did you not use a list comprehension there?",
    "What would the test for that look like?",
    "Keep it shorter, please, and name the exception that is raised.",
    "Does that still work when two threads call it at once?",
)
CHAT_SYSTEM = "You are a careful Python programmer. Answer briefly, with code where it helps."
AGENT_SYSTEM = """\
You are a coding agent in a developer's editor. Work in small steps: look before you change, change one \
thing at a time, run the tests after each change. Use the tools to read files, search, edit and run \
commands. Never invent the content of a file. Stop when the task is done and say in one paragraph what you \
changed."""


def _tool(name: str, description: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    _tool("read_file", "Read a file of the project.", path="Path relative to the project's root."),
    _tool(
        "search", "Search the project with a regular expression.", pattern="The expression.", path="Where."
    ),
    _tool(
        "edit_file",
        "Replace one passage of a file.",
        path="The file.",
        old="Text there now.",
        new="New text.",
    ),
    _tool("run_command", "Run a shell command and return its output.", command="The command line."),
]


@cache
def _snippets() -> tuple[str, ...]:
    text = Path(__file__).with_name("snippets.txt").read_text(encoding="utf-8")
    return tuple(piece.strip("\n") for piece in re.split(r"^%%\n", text, flags=re.M)[1:])


@dataclass(frozen=True)
class SourceFile:
    """A made-up Python file."""

    path: str
    text: str


def source_file(rng: Random, pieces: int) -> SourceFile:
    """A file of `pieces` snippets of 8-30 lines each."""
    entity = rng.choice(ENTITIES.split())
    field, verb = rng.choice(FIELDS.split()), rng.choice(VERBS.split())
    words = {
        "ENTITY": entity,
        "entity": entity.lower(),
        "FIELD": field,
        "VERB": verb,
        "NUMBER": str(rng.randint(3, 28)),
    }
    chosen = rng.sample(_snippets(), min(pieces, len(_snippets())))
    # A unique first line keeps two files from sharing a cached prefix by chance.
    head = f'"""{entity} records: {verb}, revision {rng.randrange(10**9)}."""\n'
    text = "\n\n\n".join([head + IMPORTS.rstrip("\n"), *chosen]) + "\n"
    text = re.sub("ENTITY|entity|FIELD|VERB|NUMBER", lambda match: words[match.group()], text)
    return SourceFile(f"src/{entity.lower()}/{verb}.py", text)


class Editing:
    """A developer typing in one file: like an IDE, asks for each completion a little further on."""

    PREFIX_CHARACTERS = 3000
    SUFFIX_CHARACTERS = 800

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._text = source_file(rng, 4).text
        bodies = [m.end() for m in re.finditer(r"^ {4,}(?:if|for|with|return|self)\b", self._text, re.M)]
        self._at = rng.choice(bodies[len(bodies) // 3 :])

    def next(self) -> tuple[str, str]:
        """The text before and after the cursor, which then moves on by a few words."""
        # The window moves in steps, not with every key, so that the server's prefix cache can help.
        start = max(0, self._at - self.PREFIX_CHARACTERS) // 1000 * 1000
        prefix = self._text[start : self._at]
        rest_of_line = self._text.find("\n", self._at)
        suffix = self._text[rest_of_line : rest_of_line + self.SUFFIX_CHARACTERS]
        self._at = min(len(self._text) - 1, self._at + self._rng.randint(8, 60))
        return prefix, suffix


class Conversation:
    """A chat about an excerpt of code, which grows by every answer."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        code = source_file(rng, 1).text.split("logger = logging.getLogger(__name__)")[1].strip()
        question = f"{rng.choice(QUESTIONS)}\n\n```python\n{code}\n```"
        self.messages: list[Message] = [
            {"role": "system", "content": CHAT_SYSTEM},
            {"role": "user", "content": question},
        ]

    def answered(self, text: str) -> None:
        """Append the answer and a follow-up question."""
        self.messages.append({"role": "assistant", "content": text})
        self.messages.append({"role": "user", "content": self._rng.choice(FOLLOW_UPS)})


class AgentRun:
    """A coding agent at work: every turn adds a tool call and its (long) result to the prompt.

    The calls are scripted, so the prompts are the same whatever the model answers.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        file = source_file(rng, 2)
        task = f"The tests of {file.path} fail since yesterday. Find out why and fix it."
        self.messages: list[Message] = [
            {"role": "system", "content": AGENT_SYSTEM},
            {"role": "user", "content": task},
        ]
        self.step()

    def step(self) -> None:
        """Add the next tool call and its result."""
        number = len(self.messages)
        file = source_file(self._rng, 2)
        call = {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": "read_file", "arguments": f'{{"path": "{file.path}"}}'},
        }
        self.messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        self.messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": file.text})


CANARIES = {
    f"canary-{index}": f"Explain in two sentences what this Python expression does: {expression}"
    for index, expression in enumerate(
        (
            "sorted(words, key=len, reverse=True)[:3]",
            "{name: len(name) for name in names if name}",
            "sum(1 for line in handle if line.strip())",
            "dict(zip(keys, values, strict=True))",
        )
    )
}
