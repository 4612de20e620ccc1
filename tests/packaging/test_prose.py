"""A small linter for prose: phrases that a native speaker would not write, and what to write instead.

It reads the documentation, the settings and tables that users edit, and every text of the chat app.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.stack.environments import ROOT

PHRASES = {
    r"reckon\w*": "estimate, compute",
    r"mend(ed|s|ing)?": "fix",
    r"so many": "a number: N requests, this many users",
    r"of (its|their|one's|his|your) own": "separate, private, or nothing",
    r"what (was|is) (seen|said)": "what was tested, what it says",
    r"(is|are|was|were) said (in|once|so|at)": "is reported in, is defined in",
    r"counts? without": "applies without",
    r"served no request": "has never been run",
    r"(requests|tokens|chunks|steps|streams|words) an? (second|minute|hour|day)": "per second",
    r"(figures|times|rows|words) a (request|file|line|model)": "per request",
    r"staged engines?": "mock engine",
    r"own sampling": "custom sampling",
    r"at one sitting": "in one sitting",
    r"utili[sz]e[sd]?": "use",
    r"in order to": "to",
    r"please": "(nothing)",
    r"simply|obviously|of course": "(nothing)",
}
FORBIDDEN = re.compile("|".join(rf"(?P<p{n}>\b(?:{phrase})\b)" for n, phrase in enumerate(PHRASES)), re.I)
REMEDIES = list(PHRASES.values())

DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "docs" / "benchmarks").glob("*.md"),
    *(ROOT / "docs" / "benchmarks").glob("*/README.md"),
    *(ROOT / ".github").rglob("*.md"),
    *(ROOT / ".github").rglob("*.yml"),
    ROOT / ".env.example",
    *(ROOT / "config").glob("*.yaml"),
]
CHAT_APP = sorted((ROOT / "ui").rglob("*.py"))


def faults(text: str) -> Iterator[str]:
    """Each forbidden phrase in `text`, with what to write instead."""
    # A line break inside a phrase does not hide it.
    for match in FORBIDDEN.finditer(re.sub(r"\s*\n[#\s]*", " ", text)):
        remedy = REMEDIES[int((match.lastgroup or "p0")[1:])]
        around = match.string[max(0, match.start() - 40) : match.end() + 20]
        yield f"{match.group()!r} in '{around}': write {remedy!r}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_are_plain_english(path: Path) -> None:
    found = list(faults(path.read_text()))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", CHAT_APP, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_chat_app_speaks_plain_english(path: Path) -> None:
    texts = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    found = [fault for text in texts for fault in faults(text)]
    assert not found, "\n".join(found)


def test_the_linter_finds_what_it_should() -> None:
    assert list(faults("How it is reckoned"))
    assert list(faults("so\n# many"))
    assert not list(faults("Recommend it; amend the table."))
