from pathlib import Path

import pytest

from services.stack import environments
from services.stack.environments import BY_NAME, Environment
from services.stack.failure import Failure


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment whose lock holds nothing, installed in a folder of the test's own."""
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    lock = tmp_path / "requirements.lock"
    lock.write_text("# nothing\n")
    environment = Environment("test", str(lock.with_suffix(".in")))
    monkeypatch.setitem(BY_NAME, "test", environment)
    return environment


def test_installs_once_and_again_when_the_lock_changes(environment: Environment) -> None:
    said: list[str] = []
    environments.ensure("test", say=said.append)
    assert environment.python.exists() and len(said) == 1
    environments.ensure("test", say=said.append)
    assert len(said) == 1
    environment.lock.write_text("# changed\n")
    environments.ensure("test", say=said.append)
    assert len(said) == 2 and environment.up_to_date()


def test_an_interrupted_installation_is_repaired(environment: Environment) -> None:
    environment.folder.mkdir()
    (environment.folder / "half").touch()
    environments.ensure("test", say=lambda _: None)
    assert environment.python.exists() and environment.up_to_date()


def test_a_failed_installation_is_not_taken_for_done(
    environment: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    environment.lock.write_text("nothing==1.0 --hash=md5:0\n")
    with pytest.raises(Failure, match="run the same command again"):
        environments.ensure("test", say=lambda _: None)
    assert not environment.up_to_date()


def test_a_moved_checkout_gets_scripts_with_its_new_path(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments.ensure("test", say=lambda _: None)
    assert environment.up_to_date() and not environment.moved()
    moved = tmp_path / "it's moved #1"
    moved.mkdir()
    environment.folder.rename(moved / "test")
    monkeypatch.setattr(environments, "ENVIRONMENTS", moved)
    assert environment.moved() and not environment.up_to_date()
    environments.ensure("test", say=lambda _: None)
    assert environment.up_to_date() and not environment.moved()


def test_a_link_to_an_environment_is_not_a_move(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments.ensure("test", say=lambda _: None)
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.setattr(environments, "ENVIRONMENTS", link)
    assert environment.up_to_date()
