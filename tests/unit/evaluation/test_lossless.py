from pathlib import Path

import pytest

from services.stack.evaluation import lossless
from services.stack.failure import Failure

A, B, C = [1, 2, 3], [1, 2, 4], [1, 2]


def test_answers_are_compared_token_by_token() -> None:
    assert lossless.compare([A, A, A], [A, B, C]) == lossless.Difference(2, [2, 2])


@pytest.mark.parametrize(
    ("without", "with_", "same"),
    [
        ([[A, A], [A, A], [A, A]], [[A, A], [A, A], [A, A]], True),
        # One answer differs between identical runs: one may differ with the option, two may not.
        ([[A, A], [A, A], [A, B]], [[A, B], [A, A], [A, B]], True),
        ([[A, A], [A, A], [A, B]], [[B, B], [A, A], [A, A]], False),
        # Wrong only when the prefix cache is used.
        ([[A, A], [A, A], [A, A]], [[A, A], [A, C], [A, A]], False),
    ],
)
def test_an_option_may_change_no_more_than_chance_does(
    without: list[list[list[int]]], with_: list[list[list[int]]], same: bool
) -> None:
    assert lossless.verdict(without, with_)[0] == same


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (None, "has no speculative-config"),
        ("enforce-eager", "is not NAME=VALUE"),
        ("speculative-config={", "is not NAME=VALUE"),
        ("dtype=bfloat16", "nothing to compare"),
    ],
)
def test_what_cannot_be_compared_is_said(option: str | None, message: str) -> None:
    with pytest.raises(Failure, match=message):
        lossless._option(option, {"dtype": "bfloat16"}, Path("coder.yaml"))
