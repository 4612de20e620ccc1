"""The engine's grammar compiler, xgrammar, in a separate process. Only `router.sandbox` uses this module.

Importing it takes time, so it is imported once, in multiprocessing's fork server, and each compilation runs
in a fork of that. The fork server starts with the first compilation, and ends when there is none for long.
"""

import base64
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import MagicMock

import numpy
import orjson
import tvm_ffi  # noqa: F401 - before torch is replaced, for which it looks

# xgrammar imports both, and needs neither to compile. They would make the environment a gigabyte larger.
sys.modules.update(dict.fromkeys(("torch", "transformers"), MagicMock()))

from xgrammar import CompiledGrammar, GrammarCompiler, GrammarMatcher, StructuralTagItem, TokenizerInfo  # noqa: E402

from router.structured import Json, Structure  # noqa: E402

# It recurses on the stack, of which the engine has 8 MB.
_STACK_BYTES = 4 << 20
_NICE = 5
_IDLE_SECONDS = 900
_SHARE = 25
# Of tiktoken's encoding p50k_base: a line has a token in Base64, and its number.
_TOKENS = "litellm_core_utils/tokenizers/ec7223a39ce59f226a68acc30dc1af2788490e15"
_LONGEST_REASON = 300
_EBNF_ESCAPES = {ord(c): rf"\{c}" for c in '\\"'} | {code: rf"\u{code:04x}" for code in (*range(32), 127)}
# What a line of xgrammar's own begins with: when, and where in its code.
_WHERE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+ ")


def _vocabulary() -> TokenizerInfo:
    """Every 25th token of GPT-3's, from a file in LiteLLM's package, and all bytes.

    How long compiling takes grows with the number of tokens. With as many as a model's, a request would wait
    for the sandbox as long as for the engine.
    """
    package = find_spec("litellm")
    assert package and package.origin  # noqa: S101 - for the type checker
    lines = (Path(package.origin).parent / _TOKENS).read_bytes().splitlines()
    words = sorted(base64.b64decode(line.split()[0]) for line in lines)
    few = [word for number, word in enumerate(words) if number % _SHARE == 0 or len(word) == 1]
    return TokenizerInfo([*few, b"</s>"], stop_token_ids=[len(few)])


_VOCABULARY = _vocabulary()


def _end_when_idle() -> None:
    """Let SIGALRM end this process; multiprocessing starts it again when it is needed. Each fork sets the
    alarm anew, and does not inherit it.
    """
    os.register_at_fork(after_in_parent=lambda: signal.alarm(_IDLE_SECONDS))
    signal.alarm(_IDLE_SECONDS)


_end_when_idle()


def compile_each(results: Connection, structures: Sequence[Structure], seconds: int, memory: int) -> None:
    """Compile `structures` one after another, and send for each the CPU seconds it took and, if it cannot be
    compiled, the compiler's reason.

    The process is killed after `seconds` of CPU time, and gets at most `memory` bytes more than it has.
    """
    os.nice(_NICE)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, size + memory),
        (resource.RLIMIT_STACK, _STACK_BYTES),
    ):
        resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))
    _silence()
    try:
        _compile_each(results, structures)
    except (MemoryError, RuntimeError):
        os.abort()  # there is no memory left


def _compile_each(results: Connection, structures: Sequence[Structure]) -> None:
    # With its cache, as in the engine: some schemas fail in that only.
    compiler = GrammarCompiler(_VOCABULARY, max_threads=1)
    for structure in structures:
        started = time.process_time()
        reason = None
        try:
            if not _allows_a_token(_compile(compiler, structure)):
                reason = "allows no answer"
        except Exception as error:
            if isinstance(error, MemoryError) or "bad_alloc" in str(error):
                raise
            reason = f"cannot be compiled: {' '.join(_WHERE.sub('', str(error)).split())[:_LONGEST_REASON]}"
        results.send((time.process_time() - started, reason))


def _allows_a_token(grammar: CompiledGrammar) -> bool:
    mask = numpy.zeros((1, (_VOCABULARY.vocab_size + 31) // 32), dtype=numpy.int32)
    GrammarMatcher(grammar).fill_next_token_bitmask(mask)
    return bool(mask.any())


def _silence() -> None:
    """Its warnings about a schema are nothing for the router's log."""
    null = os.open(os.devnull, os.O_WRONLY)
    for output in (sys.stdout, sys.stderr):
        os.dup2(null, output.fileno())


def _compile(compiler: GrammarCompiler, structure: Structure) -> CompiledGrammar:
    """As vLLM's xgrammar backend does."""
    value = structure.value
    match structure.kind:
        case "json":
            return compiler.compile_json_schema(
                value if isinstance(value, str) else orjson.dumps(value).decode()
            )
        case "regex":
            return compiler.compile_regex(value)
        case "choice":
            choices = " | ".join(f'"{str(choice).translate(_EBNF_ESCAPES)}"' for choice in value)
            return compiler.compile_grammar(f"root ::= {choices}")
        case "grammar":
            return compiler.compile_grammar(value) if _is_ebnf(value) else compiler.compile_lark(value)
        case _:
            return _compile_tag(compiler, orjson.loads(value) if isinstance(value, str) else value)


def _compile_tag(compiler: GrammarCompiler, tag: Json) -> CompiledGrammar:
    if "structures" not in tag:
        return compiler.compile_structural_tag(orjson.dumps(tag).decode())
    items = [
        StructuralTagItem(begin=part["begin"], schema=orjson.dumps(part["schema"]).decode(), end=part["end"])
        for part in tag["structures"]
    ]
    return compiler.compile_structural_tag(items, tag["triggers"])


def _is_ebnf(grammar: str) -> bool:
    """Whether it is EBNF, by vLLM's rule; Lark's notation otherwise."""
    return any("::=" in re.sub(r"(#|//).*", "", line) for line in grammar.split("\n"))
