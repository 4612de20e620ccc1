"""How the mock engine answers: each knob is a command-line option and can be changed while it runs."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Knobs:
    """How the engine answers. Times are in milliseconds, positions count output tokens from 0."""

    ttft_ms: float = 0.0  # from getting a slot to the first token
    itl_ms: float = 0.0  # between tokens; 0 is as fast as the client reads
    itl_growth_ms: float = 0.0  # so much more between tokens for each other request that runs
    read_tokens_per_s: float = (
        0.0  # prompts are read one after the other at this speed, before ttft_ms; 0: at once
    )
    completion_tokens: int = 16  # length of an answer when max_tokens does not cut it shorter
    text: str = ""  # answer with this text, one token a word
    echo: bool = False  # answer with {"path", "body"} of the request as JSON text; max_tokens is ignored
    reasoning_tokens: int = 0  # so many tokens of `reasoning` come before the content
    reasons: bool = False  # whether it takes a budget for reasoning
    cached_tokens: int = 0  # so many tokens of the prompt are said to come from the cache
    tool_call: dict[str, Any] | None = None  # {"name", "arguments"}: a tool call instead of content
    garbage: bool = False  # answer with text no model should give
    stall_at: int = -1  # before this token ...
    stall_ms: float = 0.0  # ... pause so long, once; later tokens are delayed by as much
    hang: bool = False  # no answer goes on, while /health and /metrics answer
    error_at: int = -1  # an error event in place of this token ends the stream, inside HTTP 200
    drop_at: int = -1  # the connection breaks off before this token
    no_done: bool = False  # the stream ends without its final event(s)
    no_usage: bool = False  # usage is left out even if asked for
    status: int = 200  # any other: answer with an error of this status
    error_message: str = "mock fault"
    api_key: str = ""  # any other key is answered 401, as by vLLM's --api-key; empty: all are taken
    retry_after: str = ""  # Retry-After of such an answer
    header_delay_ms: float = 0.0  # the response's head comes so late
    split_bytes: int = 0  # events are cut into network writes of so many bytes
    keep_alive: bool = True  # false closes the connection after each answer
    slots: int = 0  # at most so many run at once, the rest wait in order; 0 is no limit
    kv_tokens: int = (
        0  # prompts and answers that run fit into so many tokens, the rest wait in order; 0 is no limit
    )
    max_model_len: int = 8192  # a longer prompt + max_tokens is answered 400
    load_seconds: float = 0.0  # /health is 503 so long after the start
    healthy: bool = True  # false: /health is 503
    record_tokenize: bool = False

    def replaced(self, changes: dict[str, Any]) -> Knobs:
        """These knobs with `changes` applied; ValueError names a knob that is unknown or of a wrong type."""
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name, value in changes.items():
            if name not in fields:
                raise ValueError(f"no knob named {name!r}; knobs are {', '.join(fields)}")
            kind = fields[name].type
            fits = {
                "float": isinstance(value, int | float) and not isinstance(value, bool),
                "int": isinstance(value, int) and not isinstance(value, bool),
                "bool": isinstance(value, bool),
                "str": isinstance(value, str),
            }.get(str(kind), value is None or isinstance(value, dict))
            if not fits:
                raise ValueError(f"knob {name} takes a {kind}, not {value!r}")
        return dataclasses.replace(self, **changes)
