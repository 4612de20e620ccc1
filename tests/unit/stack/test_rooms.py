"""The tasks that run another room's module."""

import pytest

from services.stack import models
from services.stack.commands import fetch, rooms
from services.stack.settings import Settings


@pytest.mark.parametrize(
    ("arguments", "fetched"),
    [
        (["--random-weights", "--profile", "laptop", "--short"], [("laptop", True)]),
        (["--profile=laptop"], [("laptop", False)]),
        (["--short"], []),  # the embedded model is not downloaded
    ],
)
def test_a_benchmark_downloads_before_it_starts_the_service_unseen(
    arguments: list[str], fetched: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []

    def download(settings: Settings) -> None:
        done.append((settings.profile.name, settings.random_weights))

    def run(environment: str, command: list[str]) -> int:
        done.append(command)
        return 2

    monkeypatch.setattr(models, "is_whole", lambda folder, weights: False)
    monkeypatch.setattr(fetch, "fetch", download)
    monkeypatch.setattr(rooms, "_room", run)
    assert rooms.bench(arguments) == 2
    assert done == [*fetched, ["loadtests", "bench", *arguments]]
