"""The quality guard: what is worse than the reference by too much is named."""

from services.engine.quality import too_bad

REFERENCE = {"text": 0.0, "code": 0.0, "next": 100.0, "right": 8.0}


def test_what_is_nearly_as_good_passes() -> None:
    assert too_bad({"a": REFERENCE, "b": {"text": 0.8, "code": -0.2, "next": 96.8, "right": 7.0}}) == []


def test_each_figure_that_is_too_bad_is_named() -> None:
    found = too_bad({"a": REFERENCE, "b": {"text": 1.2, "code": 3.0, "next": 91.4, "right": 6.0}})
    assert [line.split()[1] for line in found] == ["text", "code", "next", "right"]
