import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from router import request_log, show_usage, usage
from router.request_log import RequestLog
from router.usage import report, start_of
from tests.support.service import Service

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)  # a Saturday
NONE = timedelta()


def line(**fields: Any) -> str:
    """A line as the router writes it, of a request that went well."""
    usual: dict[str, Any] = {
        "time": "2026-11-28T10:30:00.000+00:00",
        "client": "ann",
        "tool": "zed",
        "key": "ann",
    }
    usual |= {"alias": "coder", "status": 200, "queue_wait_ms": 100.0, "prompt_tokens": 10}
    usual |= {"completion_tokens": 5, "cached_tokens": 4, "error": None, "aborted": False}
    return json.dumps(usual | fields, separators=(",", ":")) + "\n"


def written(folder: Path, *lines: str, name: str = "requests.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(lines))
    return folder


def rows(found: dict[str, Any], view: str, *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(row[field] for field in ("name", *fields)) for row in found[view]]


def test_sums_of_every_kind(tmp_path: Path) -> None:
    written(
        tmp_path,
        line(),
        line(client="bob", key="bob", alias="general", tool="codex", prompt_tokens=20, cached_tokens=None),
        line(queue_wait_ms=300.0, time="2026-11-27T23:59:59.999+00:00"),
        line(status=429, error="requests_limit", queue_wait_ms=None, prompt_tokens=None, cached_tokens=None),
        line(status=None, aborted=True, queue_wait_ms=None),
        line(status=503, error="engine_failed", alias=None),
        line(error="engine_failed"),  # inside a stream
        line(client=None, key=None, status=401, error="bad_key", alias=None, queue_wait_ms=None),
    )
    found = report(tmp_path, NOW - timedelta(days=7), timedelta(hours=1))
    outcomes = ("requests", "refused", "failed", "left")
    assert rows(found, "client", *outcomes) == [("ann", 6, 1, 2, 1), ("bob", 1, 0, 0, 0), (None, 1, 1, 0, 0)]
    assert rows(found, "model", "requests") == [("coder", 5), (None, 2), ("general", 1)]
    assert rows(found, "tool", "requests") == [("zed", 7), ("codex", 1)]
    # An hour ahead of UTC, all of it was on Saturday.
    assert rows(found, "day", "requests") == [("2026-11-28", 8)]
    assert found["hours"][5][0] == 1 and found["hours"][5][11] == 7 and sum(map(sum, found["hours"])) == 8
    ann, bob, _ = found["client"]
    assert (ann["prompt_tokens"], ann["completion_tokens"], ann["cached_share"]) == (50, 30, 0.4)
    assert (ann["mean_wait_ms"], ann["longest_wait_ms"]) == (150.0, 300.0)
    assert ann["reasons"] == {"engine_failed": 2, "requests_limit": 1} and ann["tools"] == {"zed": 6}
    assert bob["cached_share"] is None
    assert found["total"]["requests"] == 8 and found["log_begins"] == "2026-11-27T23:59:59.999+00:00"


def test_a_key_sees_only_its_own_requests(tmp_path: Path) -> None:
    written(tmp_path, line(), line(client=None, status=400), line(client="bob", key="bob"))
    found = report(tmp_path, NOW - timedelta(days=1), NONE, "ann")
    assert rows(found, "client", "requests") == [("ann", 2)]
    assert "bob" not in json.dumps(found)


def test_only_what_is_since_then_counts(tmp_path: Path) -> None:
    written(tmp_path, line(time="2026-11-20T00:00:00.000+00:00"), line())
    old = written(tmp_path, line(time="2026-11-01T00:00:00.000+00:00"), name="requests.jsonl.2026-11-01")
    os.utime(old / "requests.jsonl.2026-11-01", (0, 0))
    found = report(tmp_path, NOW - timedelta(days=1), NONE)
    assert found["total"]["requests"] == 1 and found["log_begins"] is None


@pytest.mark.parametrize(("suffix", "module"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_rotated_files_count_compressed_or_not(tmp_path: Path, suffix: str, module: Any) -> None:
    written(tmp_path, line())
    written(tmp_path, line(), line(), name="requests.jsonl.2026-11-27")
    (tmp_path / f"requests.jsonl.2026-11-26{suffix}").write_bytes(module.compress(line().encode()))
    # Still being compressed, so it is there twice.
    (tmp_path / f"requests.jsonl.2026-11-27{suffix}").write_bytes(module.compress(line().encode())[:-3])
    found = report(tmp_path, NOW - timedelta(days=7), NONE)
    assert found["total"]["requests"] == 4 and not found["unreadable_files"]


def test_damage_costs_only_what_is_damaged(tmp_path: Path) -> None:
    torn = line()[:50]
    written(tmp_path, line(), torn, "\n", "[1]\n", '{"time": 1}\n', line(prompt_tokens="x"), line())
    (tmp_path / "requests.jsonl.2026-11-26.gz").write_bytes(gzip.compress(line().encode())[:-9])
    (tmp_path / "requests.jsonl.2026-11-25.gz").write_bytes(b"no gzip")
    found = report(tmp_path, NOW - timedelta(days=7), NONE)
    assert found["damaged_lines"] == 4
    assert found["unreadable_files"] == ["requests.jsonl.2026-11-25.gz", "requests.jsonl.2026-11-26.gz"]
    assert rows(found, "client", "completion_tokens") in ([("ann", 10)], [("ann", 15)])


def test_a_line_is_read_as_it_is_written(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, 7, 1e9)
    log.write({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "client": "ann", "status": 200})
    log.close()
    assert report(tmp_path, datetime.now(UTC) - timedelta(hours=1), NONE)["total"]["requests"] == 1


def test_lines_over_the_limits_of_a_block_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "_READ_BYTES", 400)
    written(tmp_path, *[line(prompt_tokens=number) for number in range(100)])
    found = report(tmp_path, NOW - timedelta(days=1), NONE)
    assert found["total"]["prompt_tokens"] == sum(range(100)) and not found["damaged_lines"]


def test_memory_has_a_bound_whatever_clients_call_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_MOST_NAMES", 3)
    monkeypatch.setattr(usage, "_MOST_CELLS", 2)
    written(tmp_path, *[line(client=f"c{number}", tool=f"t{number}") for number in range(9)])
    found = report(tmp_path, NOW - timedelta(days=1), NONE)
    assert [row["requests"] for row in found["client"]] == [6, 1, 1, 1]
    assert found["client"][0]["name"] == "(others)" and found["total"]["requests"] == 9


@pytest.mark.parametrize(
    ("since", "start"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("24h", NOW - timedelta(days=1)),
        ("2026-11-01", datetime(2026, 10, 31, 23, tzinfo=UTC)),
    ],
)
def test_a_time_to_begin(since: str, start: datetime) -> None:
    assert start_of(since, timedelta(hours=1), NOW) == start


@pytest.mark.parametrize("since", ["", "7", "7w", "-1d", "99999d", "2026-13-01", "0001-01-01", "٣d"])
def test_no_time_to_begin(since: str) -> None:
    with pytest.raises(ValueError, match="give"):
        start_of(since, timedelta(hours=14), NOW)


def shown(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = Service(folder).environment | {"TZ": "UTC"}
    return subprocess.run(
        [sys.executable, "-m", "router.show_usage", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "data" / "logs").mkdir(parents=True)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    written(tmp_path / "data" / "logs", line(time=now), line(time=now, client="=1+1\x1b[31m"))
    return tmp_path


def test_a_table_csv_and_json(home: Path) -> None:
    table = shown(home)
    assert table.returncode == 0 and "\x1b" not in table.stdout
    assert [text.split()[:3] for text in table.stdout.splitlines()[1:4]] == [
        ["ann", "1", "10"],
        ["=1+1?[31m", "1", "10"],
        ["total", "2", "20"],
    ]
    assert "The log begins at" in table.stderr
    assert "\n'=1+1" in shown(home, "--csv").stdout
    assert json.loads(shown(home, "--json").stdout)["total"]["requests"] == 2
    assert shown(home, "--by", "tool", "--csv").stdout.splitlines()[1].startswith("zed,2,20,0.4,10,")


def test_a_bad_time_is_a_line(home: Path) -> None:
    refused = shown(home, "--since", "soon")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--since" in refused.stderr


def test_the_heat_map_shows_few_requests_too() -> None:
    assert show_usage._SHADES[-(-1 * (len(show_usage._SHADES) - 1) // 1000)] != " "
