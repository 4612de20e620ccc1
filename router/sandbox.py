"""Compiles what a request constrains its answer with, before the engine does, where it can harm nobody.

xgrammar compiles in native code, in the engine's process. The limits in `router.structured` are cheap and
keep out what is absurd, but whether something takes minutes, gigabytes or the process itself cannot be told
by looking at it. So each schema, pattern and grammar is compiled first by the same xgrammar, in a process
that is limited in time and memory. The first one also waits until the compiler is loaded.
"""

import asyncio
import hashlib
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import orjson

from router.structured import Structure

# Of CPU time, for all of a request's structures together. With a model's 50,000 tokens the engine takes up to
# 12 times as long, because the sandbox has fewer (on a Xeon core 1.0 and 12.4 s for the largest of the public
# schemas in the tests).
SECONDS = 5
MEMORY_BYTES = 500_000_000
# Compiled at the same time, one for each client.
_AT_ONCE = 2
# The exit status of a process of multiprocessing that an exception ended.
_EXCEPTION = 1
# Outcomes remembered; the oldest is forgotten first.
_MOST = 10_000
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["router.grammar_compiler"])


class Outcome(NamedTuple):
    """What compiling took in seconds of CPU time, and why it failed, if it did."""

    seconds: float
    reason: str | None = None


class Sandbox:
    """Compiles in processes with limits, and remembers the outcomes."""

    def __init__(self, seconds: int = SECONDS, memory: int = MEMORY_BYTES) -> None:
        self._seconds = seconds
        self._memory = memory
        self._known: dict[bytes, Outcome] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._turn_of: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def fault(self, structures: Sequence[Structure], client: str) -> tuple[str, str] | None:
        """The parameter that the engine should not compile, and why: the rest of the sentence that its name
        begins. None if the engine may compile all of them.

        A client has one process at a time, so that it cannot keep others from compiling.
        """
        digests = [_digest(structure) for structure in structures]
        if any(digest not in self._known for digest in digests):
            turn = self._turn_of.setdefault(client, asyncio.Lock())
            async with turn, self._turns:
                unknown = {
                    digest: structure
                    for digest, structure in zip(digests, structures, strict=True)
                    if digest not in self._known
                }
                # Those after one that fails are not reached.
                outcomes = await self._compile(list(unknown.values())) if unknown else []
                self._remember(dict(zip(unknown, outcomes, strict=False)))
        total = 0.0
        for digest, structure in zip(digests, structures, strict=True):
            seconds, reason = self._known.get(digest, Outcome(0.0))
            total += seconds
            if reason or total > self._seconds:
                return structure.param, reason or self._too_slow
        return None

    @property
    def _too_slow(self) -> str:
        return f"takes the grammar compiler too long: more than {self._seconds} s with a small vocabulary"

    def _remember(self, outcomes: dict[bytes, Outcome]) -> None:
        self._known |= outcomes
        for digest in list(self._known)[: max(0, len(self._known) - _MOST)]:
            del self._known[digest]

    async def _compile(self, structures: Sequence[Structure]) -> list[Outcome]:
        """The outcomes up to the first one that ended the process."""
        starting = asyncio.ensure_future(asyncio.to_thread(self._start, structures))
        try:
            process, results = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(lambda done: done.result()[0].kill())
            raise
        try:
            return await asyncio.to_thread(self._read, process, results)
        finally:
            process.kill()

    def _start(self, structures: Sequence[Structure]) -> tuple[ForkServerProcess, Connection]:
        results, sender = _context.Pipe(duplex=False)
        arguments = sender, structures, self._seconds, self._memory
        process = _context.Process(target=_compile_each, args=arguments, daemon=True)
        process.start()
        sender.close()
        return process, results

    def _read(self, process: ForkServerProcess, results: Connection) -> list[Outcome]:
        outcomes = []
        with results:
            try:
                while True:
                    outcomes.append(Outcome(*results.recv()))
            except EOFError:
                process.join()
        if process.exitcode != 0:
            outcomes.append(Outcome(0.0, self._fatal(process.exitcode)))
        return outcomes

    def _fatal(self, status: int | None) -> str:
        """What ended the process, as a reason.

        Raises:
            RuntimeError: an exception did; the router's log has it.
        """
        if status == _EXCEPTION:
            raise RuntimeError("the grammar compiler cannot be used")
        if status == -signal.SIGXCPU:
            return self._too_slow
        return f"makes the grammar compiler crash, or needs more than {self._memory / 1e6:g} MB in it"


def _compile_each(*arguments: Any) -> None:
    from router.grammar_compiler import compile_each  # loads xgrammar

    compile_each(*arguments)


def _digest(structure: Structure) -> bytes:
    return hashlib.blake2b(orjson.dumps([structure.kind, structure.value]), digest_size=16).digest()
