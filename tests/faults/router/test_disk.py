"""A disk that is full or read-only, and logs that are deleted: answers go on."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.disk import Disk
from tests.support.service import Service, chat
from tests.support.waiting import wait_for

Make = Callable[..., Service]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[Path], Disk]]:
    made: list[Disk] = []

    def make(folder: Path) -> Disk:
        made.append(Disk(folder))
        return made[-1]

    yield make
    for each in made:
        each.remove()


def ask(service: Service, *, stream: bool) -> None:
    answer = service.post("/v1/chat/completions", chat(stream=stream, user="x" * 200))
    assert answer.status_code == 200 and '"error"' not in answer.text
    assert not stream or answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_requests_are_served_from_a_spoiled_disk(
    own_service: Make, disk: Callable[[Path], Disk], how: str
) -> None:
    service = own_service()
    small = disk(service.folder / "data" / "logs")
    if how == "read-only":  # a file that is open for writing keeps it from becoming so later
        small.spoil(how)
    service.start()
    ask(service, stream=True)
    if how == "full":
        wait_for(service.records, "the request is in the log")
        small.spoil(how)
    for number in range(30):
        ask(service, stream=number % 2 == 0)
    assert "requests are missing in" in service.log() and "Traceback" not in service.log()
    assert service.log().count("requests are missing in") == 1
    assert service.router is not None
    service.router.stop()
    service.start_router()  # it can be started, too
    service.wait_ready()
    ask(service, stream=True)
    small.repair(how)
    answer = service.post("/v1/chat/completions", chat())
    log = service.folder / "data" / "logs" / "requests.jsonl"

    def last() -> bool:
        lines = log.read_text().splitlines(keepends=True) or [""]  # none yet, in a new file
        line = lines[-1]  # half of one, where the disk was full
        return line.endswith("\n") and json.loads(line)["request_id"] == answer.headers["x-request-id"]

    wait_for(last, "requests are in the log again, in lines of their own")


def test_a_deleted_request_log_is_created_again(own_service: Make) -> None:
    service = own_service().start()
    log = service.folder / "data" / "logs" / "requests.jsonl"
    ask(service, stream=False)
    for delete in (log.unlink, partial(shutil.rmtree, log.parent)):
        wait_for(service.records, "the request is in the log")
        delete()
        assert service.gauge("duoserve_waiting") == 0  # its metrics can be read all the time
        ask(service, stream=False)
        wait_for(log.exists, "the log is there again")
        wait_for(lambda: len(service.records()) == 1, "it holds the request")
