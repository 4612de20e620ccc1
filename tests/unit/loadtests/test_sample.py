from __future__ import annotations

import pytest

from loadtests.measure.sample import looks_like_garbage


@pytest.mark.parametrize(
    "text",
    ["!" * 60, "\ufffd" * 9 + "abc", "ok \x00\x01\x02\x03", "def f():\n" + "x" * 50],
)
def test_garbage(text: str) -> None:
    assert looks_like_garbage(text)


@pytest.mark.parametrize(
    "text",
    [
        "def add(a, b):\n    return a + b\n",
        "# " + "-" * 78,
        "    " * 30 + "pass",
        "Grüße, 世界 🎉 \ufffd",  # one character cut by max_tokens
        "the the the the the the the the the the the the",  # dull, but words
        "0" * 64,
    ],
)
def test_not_garbage(text: str) -> None:
    assert not looks_like_garbage(text)
