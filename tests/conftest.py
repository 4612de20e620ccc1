"""Fixtures that several kinds of tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from tests.support.service import Service
from tests.support.stack import Stack

# The tests that start the real service: two engines are all that a machine has memory and cores for.
NEED_ENGINES = ("tests/e2e/", "tests/hostile/", "tests/soak/", "tests/browser/test_chat_real.py")
# Load tests of mock engines, whose times are not this machine's.
_WAIT = "tests/contract/loadtests/"
_STACK = pytest.StashKey[Stack]()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The real service, three engines ready: started once for all tests that only use it."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.add_embedding()
    request.config.stash[_STACK] = stack
    try:
        up = stack.run("up", "--detach")
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}\n{stack.logs()}"
        yield stack
    finally:
        stack.run("down")


@pytest.fixture
def own_settings() -> dict[str, str]:
    """The settings of `own_stack`; a module that needs others overrides this."""
    return {}


@pytest.fixture
def own_stack(
    tmp_path: Path, request: pytest.FixtureRequest, own_settings: dict[str, str]
) -> Iterator[Stack]:
    """A stack that is not started, for tests that start, break and stop one."""
    stack = Stack(tmp_path / "home", **own_settings)
    request.node.stash[_STACK] = stack
    try:
        yield stack
    finally:
        stack.run("down")


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Makes services of a test's own, with settings of its own, that it may break."""
    made: list[Service] = []

    def make(**settings: Any) -> Service:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Service(folder, **settings))
        return made[-1]

    try:
        yield make
    finally:
        for service in made:
            service.stop()


class _OneWithEngines(LoadScopeScheduling):  # type: ignore[misc]  # without types
    """With several processes (`-n`), one runs all that needs real engines; the others take file by file."""

    def _split_scope(self, nodeid: str) -> str:
        return "engines" if nodeid.startswith(NEED_ENGINES) else nodeid.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _OneWithEngines:
    return _OneWithEngines(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes, begin with what takes longest, so that they end at the same time.

    What mostly waits comes first of all: later, there would be nothing left for the cores to do meanwhile.
    """
    if hasattr(config, "workerinput"):
        # pyproject.toml has the fast ones first.
        files = list(dict.fromkeys(item.path for item in reversed(items)))
        place = {path: number for number, path in enumerate(files)}

        def order(item: pytest.Item) -> tuple[bool, bool, int]:
            engines = item.nodeid.startswith(NEED_ENGINES)
            return not engines, not item.nodeid.startswith(_WAIT), 0 if engines else place[item.path]

        items.sort(key=order)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Show the services' logs with a failure of a test that uses them."""
    report = yield
    stack = item.stash.get(_STACK, None)
    if stack is None and "stack" in getattr(item, "fixturenames", ()):
        stack = item.config.stash.get(_STACK, None)
    if report.when == "call" and report.failed and stack:
        report.sections.append(("logs of the services", stack.logs()))
    return report
