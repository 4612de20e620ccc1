"""Which precision is taken, and when it is measured anew."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from services.engine import precision
from services.engine.precision import Figures
from tests.support import ROOT

# As measured on a CPU with AVX2 only, and on one with AVX-512, VNNI and bf16.
AVX2 = {
    "int8-bfloat16": Figures(167, 260, 67),
    "bfloat16": Figures(62, 233, 38),
    "int8-float32": Figures(172, 191, 212),
    "float32": Figures(81, 116, 226),
}
AVX512 = {
    "int8-bfloat16": Figures(39, 45, 493),
    "bfloat16": Figures(42, 51, 330),
    "int8-float32": Figures(46, 57, 667),
    "float32": Figures(60, 68, 462),
}


def test_the_quickest_is_taken() -> None:
    assert precision.quickest(AVX2) == "float32"
    assert precision.quickest(AVX512) == "int8-bfloat16"


def test_noise_does_not_change_the_choice() -> None:
    usual = Figures(40, 50, 500)
    assert precision.quickest({"float32": Figures(39, 49, 505), "int8-bfloat16": usual}) == "int8-bfloat16"
    assert precision.quickest({"float32": Figures(36, 45, 550), "int8-bfloat16": usual}) == "float32"


class Machine:
    """A machine that measures what it is told to, and notes what was measured."""

    def __init__(self, record: Path) -> None:
        self.record = record
        self.identity: dict[str, object] = {"cpu": "A", "flags": "avx2", "threads": 1}
        self.measured: list[list[str]] = []
        self.compiled: Figures | None = None

    def measure(self, names: list[str], _: Callable[[str], None]) -> dict[str, Figures]:
        self.measured.append(list(names))
        figures = AVX2 | {"float32-compiled": self.compiled} if self.compiled else AVX2
        try:
            return {name: figures[name] for name in names}
        except KeyError:
            raise precision.MeasuringError("g++: not found: Python.h") from None

    def choose(self) -> str:
        return precision.choose(lambda _: None, self.record)[0].name


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path / "cache" / "precision.json")
    monkeypatch.setattr(precision, "measure", machine.measure)
    monkeypatch.setattr(precision, "machine", lambda: machine.identity)
    monkeypatch.setattr(precision, "compiler", lambda: "")
    monkeypatch.delenv("CPU_PRECISION", raising=False)
    return machine


def test_a_cpu_is_measured_once(machine: Machine) -> None:
    assert [machine.choose(), machine.choose()] == ["float32", "float32"]
    assert machine.measured == [["int8-bfloat16", "bfloat16", "int8-float32", "float32"]]
    assert json.loads(machine.record.read_text())["quickest"] == "float32"


@pytest.mark.parametrize("change", [{"cpu": "B"}, {"flags": "avx2 avx512f"}, {"threads": 2}])
def test_another_machine_is_measured_anew(machine: Machine, change: dict[str, object]) -> None:
    machine.choose()
    machine.identity |= change
    machine.choose()
    assert len(machine.measured) == 2


def test_a_damaged_record_is_measured_anew(machine: Machine) -> None:
    machine.choose()
    machine.record.write_text(machine.record.read_text()[:100])
    assert machine.choose() == "float32"


def test_the_setting_overrides_and_only_what_is_served_is_measured(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPU_PRECISION", "bfloat16")
    assert machine.choose() == "bfloat16"
    assert machine.measured == [["bfloat16"]]
    monkeypatch.setenv("CPU_PRECISION", "auto")
    assert machine.choose() == "float32"


@pytest.fixture
def gxx(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "compiler", lambda: "/usr/bin/g++")


@pytest.mark.usefixtures("gxx")
def test_the_quickest_is_compiled_where_there_is_a_compiler(machine: Machine) -> None:
    machine.compiled = Figures(60, 95, 225)
    assert [machine.choose(), machine.choose()] == ["float32-compiled"] * 2
    assert machine.measured[1:] == [["float32-compiled", "float32"]]


def test_what_was_compiled_for_other_instructions_is_not_run(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With vLLM 0.32 and torch 2.13, the engine ends in malloc where it is.
    def folder() -> Path:
        return Path(precision.caches(machine.record)["TORCHINDUCTOR_CACHE_DIR"])

    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    avx2 = folder()
    avx2.mkdir(parents=True)
    of_a_gpu = avx2.with_name("inductor")
    of_a_gpu.mkdir()
    assert machine.choose() == "float32"
    assert avx2.exists()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")
    assert folder() != avx2
    folder().mkdir()
    machine.identity["instructions"] = "avx512"
    machine.choose()
    assert folder().exists() and of_a_gpu.exists() and not avx2.exists()


def test_who_may_not_write_to_the_checkout_has_caches_at_home(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # vLLM does not start where torch cannot write.
    machine.choose()
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "home" / "vllm"))
    assert {Path(path).parent for path in precision.caches(machine.record).values()} == {tmp_path / "cache"}
    monkeypatch.setattr("os.access", lambda *_: False)
    assert {Path(path).parent for path in precision.caches(machine.record).values()} == {tmp_path / "home"}


@pytest.mark.usefixtures("gxx")
def test_what_gains_nothing_by_compiling_is_served_as_it_is(machine: Machine) -> None:
    machine.compiled = Figures(80, 115, 226)
    assert [machine.choose(), machine.choose()] == ["float32"] * 2
    assert len(machine.measured) == 2


@pytest.mark.usefixtures("gxx")
def test_a_compiler_that_fails_is_told_once_and_not_tried_again(machine: Machine) -> None:
    said: list[str] = []
    precision.choose(said.append, machine.record)
    assert "/usr/bin/g++ could not compile it, so it is served as it is: g++: not found: Python.h" in said
    assert machine.choose() == "float32"
    assert len(machine.measured) == 2


def test_compiled_is_refused_without_a_compiler(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPU_PRECISION", "float32-compiled")
    with pytest.raises(
        precision.MeasuringError, match=r"CPU_PRECISION=float32-compiled needs a C\+\+ compiler"
    ):
        machine.choose()


def test_an_unknown_setting_is_refused_with_the_known_ones(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPU_PRECISION", "int4")
    with pytest.raises(precision.UnknownPrecisionError, match="int4 is none of: auto, int8-bfloat16"):
        machine.choose()
    assert machine.measured == []


def test_what_vllm_said_last_is_the_reason_why_nothing_was_measured() -> None:
    # vLLM is not in the tests' environment.
    with pytest.raises(precision.MeasuringError, match="No module named 'vllm'"):
        precision.measure(["float32"], lambda _: None)


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hangs = tmp_path / "python"
    hangs.write_text("#!/bin/sh\necho compiling float32-compiled\nexec sleep 600\n")
    hangs.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(hangs))
    monkeypatch.setattr(precision, "STALLED", 0.5)
    said: list[str] = []
    with pytest.raises(precision.MeasuringError, match="it hung for 0 minutes, and was ended"):
        precision.measure(["float32-compiled"], said.append)
    assert said == ["  compiling float32-compiled"]


def test_as_many_tokens_fit_in_float32() -> None:
    profile = yaml.safe_load((ROOT / "config/engines/cpu/coder.yaml").read_text())
    for variant in precision.VARIANTS.values():
        size = variant.settings.get("kv-cache-memory-bytes", profile["kv-cache-memory-bytes"])
        per_value = 4 if variant.settings["dtype"] == "float32" else 2
        assert int(size.removesuffix("M")) == 384 * per_value


def test_the_profile_itself_is_the_first_variant() -> None:
    for alias in ("coder", "general"):
        profile = yaml.safe_load((ROOT / f"config/engines/cpu/{alias}.yaml").read_text())
        first = next(iter(precision.VARIANTS.values()))
        assert (profile["model"], profile["dtype"]) == (first.model, first.settings["dtype"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("int8-bfloat16", ["--dtype", "bfloat16"]),
        ("float32", ["--dtype", "float32", "--kv-cache-memory-bytes", "1792M"]),
    ],
)
def test_another_model_gets_the_type_and_a_cache_for_as_many_tokens(name: str, arguments: list[str]) -> None:
    assert precision.VARIANTS[name].arguments_for({"kv-cache-memory-bytes": "896M"}) == arguments
