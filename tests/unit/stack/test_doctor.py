import socket
from pathlib import Path

import pytest

from services.stack import settings
from services.stack.commands import doctor
from services.stack.failure import Failure


def test_a_port_in_use_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / ".env").write_text(f"ROUTER_PORT={taken.getsockname()[1]}\n")
        problems = [c.problem for c in doctor.machine(settings.load(tmp_path)) if c.problem]
    assert any("ROUTER_PORT" in problem for problem in problems)


def test_an_address_that_is_not_this_machines_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BIND_ADDRESS=2001:db8::1\n")
    problems = [c.problem for c in doctor.machine(settings.load(tmp_path)) if c.problem]
    assert any("change BIND_ADDRESS" in problem for problem in problems)


def test_a_machine_without_gpu_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failure, match=r"^No NVIDIA GPU .* --engine cpu\.$"):
        doctor.require(settings.load(tmp_path).with_engine("cuda"))


def test_too_little_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MEMORY", 10**15)
    with pytest.raises(Failure, match="GB are needed"):
        doctor.require(settings.load(tmp_path))


def test_a_key_that_others_can_read_is_a_problem(tmp_path: Path) -> None:
    settings.ensure_key(tmp_path, lambda _: None)
    (tmp_path / ".env").chmod(0o644)
    problems = [c.problem for c in doctor.installation(settings.load(tmp_path)) if c.problem]
    assert any("chmod 600" in problem for problem in problems)


def test_a_processor_without_avx2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("flags : fpu sse4_2 avx\n")
    monkeypatch.setattr(doctor, "CPU_FLAGS", tmp_path / "cpuinfo")
    with pytest.raises(Failure, match="no AVX2"):
        doctor.require(settings.load(tmp_path))


def test_too_little_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_TO_RUN", 10**18)
    monkeypatch.setattr(doctor, "DISK_TO_INSTALL", 10**18)
    with pytest.raises(Failure, match="free some space"):
        doctor.require(settings.load(tmp_path))


def test_a_missing_system_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(Failure, match="libnuma1"):
        doctor.require(settings.load(tmp_path))
