from collections.abc import Iterator

import pytest

from tests.support.service import Service


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A module that needs another configuration has its own."""
    service = Service(tmp_path_factory.mktemp("router"))
    with service:
        yield service


@pytest.fixture
def service(shared: Service) -> Service:
    """The router that tests share, with its engines as they were at the start."""
    for engine in shared.engines.values():
        engine.reset()
    return shared
