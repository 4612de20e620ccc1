"""The quality guard: what is worse than the reference by too much is named."""

import pytest

from services.engine.quality import CHARACTERS, READ, Answers, compare, too_bad
from tests.support import ROOT

REFERENCE = {"text": 0.0, "code": 0.0, "next": 100.0, "right": 8.0}


def test_what_is_nearly_as_good_passes() -> None:
    assert too_bad({"a": REFERENCE, "b": {"text": 0.8, "code": -0.2, "next": 96.8, "right": 7.0}}) == []


def test_each_figure_that_is_too_bad_is_named() -> None:
    found = too_bad({"a": REFERENCE, "b": {"text": 1.2, "code": 3.0, "next": 91.4, "right": 6.0}})
    assert [line.split()[1] for line in found] == ["text", "code", "next", "right"]


def test_perplexity_comes_with_its_standard_error() -> None:
    reference = Answers([[1]], {"text": [1.0, 2.0, 3.0, 4.0]})
    row: dict[str, float] = {}
    compare(row, Answers([[1]], {"text": [1.01, 2.01, 3.01, 4.01]}), reference)
    assert row == pytest.approx({"text": 1.005, "text_error": 0.0, "same": 100}, abs=1e-3)
    compare(row, Answers([[2]], {"text": [1.03, 1.99, 3.03, 3.99]}), reference)
    assert row == pytest.approx({"text": 1.005, "text_error": 1.155, "same": 0}, abs=1e-3)


@pytest.mark.parametrize("name", READ)
def test_there_is_enough_to_read(name: str) -> None:
    assert sum(len((ROOT / file).read_text()) for file in READ[name]) >= CHARACTERS
