"""What the stack tells of the precision that the engine's room measured."""

import json
from pathlib import Path

import pytest

from services.engine.precision import VARIANTS
from services.stack import precision, settings
from services.stack.failure import Failure

RECORD = {
    "quickest": "float32",
    "figures": {
        "float32": {"step_1_ms": 81.0, "step_5_ms": 116.0, "prompt_tokens_per_s": 226.0},
        "bfloat16": {"step_1_ms": 62.0, "step_5_ms": 233.0, "prompt_tokens_per_s": 38.0},
    },
}


@pytest.fixture(autouse=True)
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "precision.json"
    path.write_text(json.dumps(RECORD))
    monkeypatch.setattr(precision, "RECORD", path)
    return path


def test_it_says_what_a_user_may_expect(tmp_path: Path) -> None:
    assert str(precision.chosen(settings.load(tmp_path))).startswith(
        "float32: about 12 tokens a second on this CPU, 9 for each of five users"
    )


def test_the_setting_decides(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CPU_PRECISION=bfloat16\n")
    chosen = precision.chosen(settings.load(tmp_path))
    assert chosen and chosen.name == "bfloat16"


def test_nothing_is_said_before_it_was_measured(tmp_path: Path, record: Path) -> None:
    record.unlink()
    assert precision.chosen(settings.load(tmp_path)) is None


def test_engines_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert precision.environment_of(settings.load(tmp_path))["OMP_NUM_THREADS"] == "4"
    (tmp_path / ".env").write_text("CODER_URL=http://127.0.0.1:8001,http://127.0.0.1:8003\n")
    assert precision.environment_of(settings.load(tmp_path))["OMP_NUM_THREADS"] == "2"


def test_a_precision_that_there_is_not_is_named_before_anything_is_prepared(tmp_path: Path) -> None:
    for name in ("auto", *VARIANTS):
        (tmp_path / ".env").write_text(f"CPU_PRECISION={name}\n")
        settings.load(tmp_path)
    for name in ("int4", "auto-compiled", "int8-float32-compiled-compiled", ""):
        (tmp_path / ".env").write_text(f"CPU_PRECISION={name}\n")
        with pytest.raises(Failure, match="CPU_PRECISION"):
            settings.load(tmp_path)
