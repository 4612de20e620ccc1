"""The schemas in tests/support/schemas are like those that clients send: tools of MCP servers and agents, and
formats of well-known files. They were written for these tests with the features and size of the real ones.
"""

import asyncio
import json
import multiprocessing
import signal
import string
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest

from router.json_schema import relaxed
from router.sandbox import Outcome, Sandbox
from router.structured import Structure, check_schema
from tests.support import ROOT
from tests.support.waiting import PATIENCE, until

Json = dict[str, Any]
SCHEMAS: dict[str, Json] = {
    path.stem: json.loads(path.read_text()) for path in (ROOT / "tests" / "support" / "schemas").iterdir()
}
TOOLS: dict[str, Json] = SCHEMAS.pop("tools")


def text(**keywords: Any) -> Json:
    return {"type": "string", **keywords}


def many(items: Json, **keywords: Any) -> Json:
    return {"type": "array", "items": items, **keywords}


def required(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


BRACKETS = "(" * 100_000 + "a" + ")" * 100_000
# Compiles for a minute.
SLOW = required({f"p{i}": text(format="uri") for i in range(900)})
Fault = tuple[str, str] | None


def run(work: Callable[[Sandbox], Awaitable[Any]], **limits: int) -> Any:
    async def main() -> Any:
        return await asyncio.wait_for(work(Sandbox(**limits)), PATIENCE)

    return asyncio.run(main())


def fault(*given: tuple[str, Any], **limits: int) -> Fault:
    structures = [Structure(f"p{number}", kind, value) for number, (kind, value) in enumerate(given)]
    found: Fault = run(lambda sandbox: sandbox.fault(structures, "client"), **limits)
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_of_well_known_files_are_accepted(name: str) -> None:
    schema = SCHEMAS[name]
    check_schema(schema)
    assert fault(("json", schema), ("json", relaxed(schema)[0])) is None


def test_the_tools_of_well_known_servers_are_accepted_all_at_once() -> None:
    for schema in TOOLS.values():
        check_schema(schema)
    assert fault(*(("json", schema) for schema in TOOLS.values())) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("json", required({f"column_{i}": {"type": ["string", "null"]} for i in range(300)})),
        ("json", {"properties": {f"column_{i}": {"type": ["string", "null"]} for i in range(300)}}),
        ("json", {"enum": [f"{a}{b}" for a in string.ascii_uppercase for b in string.ascii_uppercase]}),
        ("json", text(maxLength=100_000)),
        ("json", many(many(text(maxLength=5000), minItems=1000), maxItems=10_000)),
        ("json", text(pattern="^(.{300}){300}$")),
        ("json", '{"type": "object", "minProperties": 1000, "additionalProperties": true}'),
        ("regex", "([a-z]{0,300}){0,300}"),
        ("regex", "(a|b|ab){0,10000}"),
        ("choice", ['a"b', "line\nbreak", "\\", "\x7f", "é"]),
        ("choice", [f"number {i}" for i in range(5000)]),
        ("grammar", 'root ::= "a" | "(" root ")"'),
        ("grammar", 'start: "a" | "(" start ")"'),
        (
            "structural_tag",
            {"type": "structural_tag", "format": {"type": "json_schema", "json_schema": text()}},
        ),
        (
            "structural_tag",
            '{"structures": [{"begin": "<a>", "schema": {}, "end": "</a>"}], "triggers": ["<a>"]}',
        ),
    ],
    ids=range(15),
)
def test_what_is_large_and_can_be_compiled_is(kind: str, value: Any) -> None:
    assert fault((kind, value)) is None


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("json", SLOW, "too long: more than 1 s"),
        ("json", text(pattern=BRACKETS), "crash"),
        ("regex", BRACKETS, "Nest layer"),
        ("regex", "a[", "Unclosed"),
        ("regex", "[" + "".join(chr(0x4E00 + 2 * i) for i in range(4000)) + "]{100}", "too long"),
        ("grammar", "root ::= ", "line 1"),
        ("grammar", "start: unknown", "unknown"),
        ("grammar", 'root ::= root "a"', "allows no answer"),
        (
            "json",
            {"type": "object", "propertyNames": text(pattern="^.{500}$"), "minProperties": 500},
            "cannot be compiled",
        ),
        ("json", {"$ref": "#/$defs/missing"}, "missing"),
        ("json", {"type": "object", "minProperties": 1}, "minProperties"),
        ("structural_tag", {"type": "structural_tag", "format": {"type": "nonsense"}}, "nonsense"),
        ("structural_tag", {"structures": [{}], "triggers": []}, "begin"),
    ],
    ids=range(13),
)
def test_what_cannot_is_refused_with_the_reason_and_the_name(kind: str, value: Any, words: str) -> None:
    found = fault(("json", {}), (kind, value), ("json", text()), seconds=1)
    assert found is not None
    param, reason = found
    assert param == "p1" and words in reason and len(reason) < 400 and "/project/" not in reason


def test_the_memory_is_limited() -> None:
    names = [f"name_{i}" * 20 for i in range(5000)]
    found = fault(("json", required({name: text() for name in names})), memory=20_000_000)
    assert found is not None and "more than 20 MB" in found[1]


def test_the_time_is_that_of_all_structures_and_of_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is quick enough, and all of them are not, however often they are asked for."""

    async def compiled(_: Sandbox, structures: list[Structure]) -> list[Outcome]:
        return [Outcome(0.4) for _ in structures]

    monkeypatch.setattr(Sandbox, "_compile", compiled)
    parts = [Structure(str(n), "json", required({f"p{n}": text()})) for n in range(3)]

    async def ask(sandbox: Sandbox) -> tuple[Fault, Fault, Fault]:
        return (
            await sandbox.fault(parts[:1], "client"),
            await sandbox.fault(parts, "client"),
            await sandbox.fault(parts, "client"),
        )

    first, second, third = run(ask, seconds=1)
    assert first is None and second is not None and third is not None
    assert "too long" in third[1]


def test_an_outcome_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = Structure("good", "json", text()), Structure("bad", "regex", "a[")

    async def ask(sandbox: Sandbox) -> Fault:
        before = await sandbox.fault([good, bad], "client")

        def start(*_: object) -> None:
            raise AssertionError("it was compiled again")

        monkeypatch.setattr(sandbox, "_start", start)
        assert await sandbox.fault([good], "other") is None
        assert await sandbox.fault([bad, good], "other") == before
        return before

    assert run(ask) is not None


def test_one_client_does_not_keep_another_from_compiling() -> None:
    async def ask(sandbox: Sandbox) -> None:
        slow = [
            asyncio.ensure_future(sandbox.fault([Structure("slow", "json", SLOW | {"title": str(n)})], "mad"))
            for n in range(5)
        ]
        await asyncio.sleep(0)
        assert await sandbox.fault([Structure("quick", "json", text())], "other") is None
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()

    run(ask, seconds=60)


def test_nothing_goes_on_for_a_client_that_left() -> None:
    async def ask(sandbox: Sandbox) -> None:
        task = asyncio.ensure_future(sandbox.fault([Structure("slow", "json", SLOW)], "client"))
        await until(multiprocessing.active_children, "it compiles")
        task.cancel()
        await until(lambda: not multiprocessing.active_children(), "it has ended")
        assert await sandbox.fault([Structure("quick", "json", text())], "client") is None

    run(ask, seconds=600)


def test_the_compiler_ends_when_it_is_idle_and_is_loaded_again() -> None:
    async def ask(sandbox: Sandbox) -> None:
        assert await sandbox.fault([Structure("first", "json", text())], "client") is None
        (server,) = [p for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline())]
        server.send_signal(signal.SIGALRM)
        await until(lambda: server.status() == psutil.STATUS_ZOMBIE, "it has ended")
        assert await sandbox.fault([Structure("second", "json", text())], "client") is None

    run(ask)


def test_each_compilation_sets_the_alarm_anew() -> None:
    script = """
import os, signal
from router import grammar_compiler
left = signal.alarm(1)
if not os.fork():
    os._exit(signal.alarm(0))  # not inherited
print(left, os.wait()[1], signal.alarm(0))
"""
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=ROOT).stdout
    left, status, again = map(int, printed.split())
    assert left > 60 and status == 0 and again > 60
