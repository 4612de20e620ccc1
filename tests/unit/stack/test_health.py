from pathlib import Path

from services.stack.supervision.health import STARTING, WAITING, phase, reason


def test_the_phase_is_the_last_that_the_log_tells(tmp_path: Path) -> None:
    log = tmp_path / "coder.log"
    assert phase(log) == "starting"
    log.write_bytes(WAITING)
    assert phase(log) == "waiting for another engine to load"
    log.write_bytes(WAITING + STARTING)
    assert phase(log) == "importing vLLM"
    log.write_text(
        "(EngineCore pid=1) INFO 11-22 16:43:26 [core.py:133] Initializing a V1 LLM engine (v0.32.0)\n"
    )
    assert phase(log) == "starting the engine"
    with log.open("a") as handle:
        handle.write("(Worker pid=1) INFO [cpu_model_runner.py:68] Starting to load model models/x...\n")
        handle.write("(Worker pid=1) INFO [cpu_model_runner.py:87] Warming up model for the compilation...\n")
    assert phase(log) == "warming up"


def test_the_reason_is_the_telling_line_without_its_prefixes(tmp_path: Path) -> None:
    log = tmp_path / "coder.log"
    log.write_text(
        "Traceback (most recent call last):\n"
        "(EngineCore pid=7) ERROR 11-22 16:43:26 [core.py:1] ValueError: No available memory\n"
        "resource_tracker: leaked\n"
    )
    assert reason(log) == "ValueError: No available memory"
    assert reason(tmp_path / "none.log") == "it left no log"
