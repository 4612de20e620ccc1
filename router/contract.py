"""The OpenAPI description of the router: `python -m router.contract` writes docs/contracts/.

Made from the schemas by which the router checks requests, so that the two cannot differ. One test compares
the files with it; another fuzzes a running router against them.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import models_json_schema

from router import paths
from router.models import MODES
from router.schemas import BY_PATH
from router.settings import ROOT
from router.usage import VIEWS

Json = dict[str, Any]
FOLDER = ROOT / "docs" / "contracts"

_SUMMARIES = {
    paths.CHAT: "Chat completion (OpenAI). Streams server-sent events with `stream`.",
    paths.COMPLETIONS: "Text completion (OpenAI). With `suffix` the model fills in the middle.",
    paths.RESPONSES: "Response (OpenAI). Nothing is stored.",
    paths.MESSAGES: "Message (Anthropic).",
    paths.INPUT_TOKENS: "Count the tokens of a response's prompt (OpenAI).",
    paths.COUNT_TOKENS: "Count the tokens of a message's prompt (Anthropic).",
    paths.EMBEDDINGS: "Embeddings (OpenAI). Needs a model for them; see `mode` in /v1/models.",
    paths.RERANK: "Order documents by relevance (Cohere, Jina); also as /rerank and /v2/rerank.",
}
_REFUSALS = {
    "400": "The request is not valid; see `param`. `context_length_exceeded`: the prompt is too long.",
    "401": "The key is missing or wrong.",
    "404": "The model does not exist.",
    "405": "The route takes another method.",
    "413": "The body is larger than MAX_BODY_MB, as it is sent or decompressed.",
    "415": "The body is compressed by something else than gzip or deflate.",
    "429": "The queue is full, the wait was too long, or a rate limit is reached; see Retry-After.",
    "503": "The model is loading or down, or its engine failed; Retry-After says when to try again.",
    "504": "The answer was not complete within REQUEST_TIMEOUT.",
}
_HEADERS = {
    "x-request-id": ("string", "The id of this request in the router's log."),
    "x-duoserve-key": ("string", "The name of the key that was sent, percent-encoded."),
    "x-duoserve-queue-wait-ms": ("integer", "How long the request waited for a slot."),
    "x-duoserve-queue-position": (
        "integer",
        "Its place in the queue on arrival; 0: it got a slot at once.",
    ),
    "x-duoserve-in-flight": (
        "integer",
        "Slots of all models that were taken when this request got its own, including these.",
    ),
    "x-duoserve-gave-way-ms": (
        "integer",
        "How long a long prompt waited while its engine answered autocompletions; absent: not at all.",
    ),
    "x-duoserve-truncated-messages": ("integer", "Messages left out so that the prompt fits; absent: none."),
    "x-duoserve-truncated-tokens": ("integer", "Tokens left out so that the prompt fits; absent: none."),
    "x-duoserve-fallback": (
        "string",
        "The model that answered, as the one asked for failed (`fallbacks` in config/litellm.yaml), or the "
        "prompt does not fit into its context (`context_window_fallbacks`).",
    ),
    "x-duoserve-suffix": (
        "string",
        "`ignored`: the model does not fill in the middle, and only continued `prompt`. Absent: used.",
    ),
    "x-duoserve-ignored": (
        "string",
        "Parameters, tools and JSON schema keywords that were left out, because no engine here can use them.",
    ),
    "x-duoserve-moved": (
        "string",
        "Texts that change from request to request and were moved to the end of the prompt, so that the rest "
        "stays in the prefix cache (config/prefix.yaml).",
    ),
    "x-duoserve-cache": (
        "string",
        "How much of a turn's prompt is in the engine's cache, and why that is less than the turn before it "
        "sent, as in `1,204 of 61,310 tokens; prefix changed at token 1,204 (system prompt)`. Of a stream, "
        "this is the router's estimate; the request log has the engine's count. Absent: nothing was lost.",
    ),
    "x-duoserve-set": (
        "string",
        "Parameters that the router set or lowered: several choices cannot be greedy (temperature=1), and an "
        "answer ends with the context (max_tokens=900).",
    ),
    "x-ratelimit-limit-requests": (
        "integer",
        "Requests per minute; only with a limit. The same for `-tokens`.",
    ),
    "x-ratelimit-remaining-requests": ("integer", "Requests left in this minute. The same for `-tokens`."),
    "x-ratelimit-reset-requests": (
        "string",
        "Time until the limit is reset, as in 42s. The same for `-tokens`.",
    ),
}
_OPENAI_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ANTHROPIC_ERROR: Json = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
# One server-sent event of a stream. A stream that fails after its start ends with an event with the error.
# Before the first event there may be comments, which parsers skip (router/layers/keep_alive.py).
_EVENT: Json = {
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
}
_MODEL: Json = {
    "type": "object",
    "required": ["id", "object", "owned_by", "root", "mode", "max_model_len", "fill_in_the_middle", "remote"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "type": {"const": "model", "description": "Anthropic's word for `object`."},
        "display_name": {"type": "string", "description": "The model's real name."},
        "created": {"type": "integer"},
        "created_at": {"type": "string", "format": "date-time"},
        "owned_by": {"type": "string", "description": "`duoserve`, or the provider of a remote model."},
        "root": {"type": "string", "description": "The model of config/litellm.yaml that it stands for."},
        "mode": {
            "enum": list(MODES),
            "description": "What it is for: LiteLLM's `mode`. `completion` is for autocompletion.",
        },
        "output_vector_size": {
            "type": ["integer", "null"],
            "description": "How many numbers an embedding has, if the engine's file says so.",
        },
        "max_model_len": {"type": "integer", "description": "Context length in tokens."},
        "fill_in_the_middle": {
            "type": "boolean",
            "description": "Whether the model uses the `suffix` of a completion.",
        },
        "description": {"type": "string", "description": "What the model is good for; may be empty."},
        "supports_vision": {"type": "boolean", "description": "Whether the model takes pictures."},
        "remote": {
            "type": "boolean",
            "description": "Whether another service answers, so that requests leave this one.",
        },
    },
}
_MODELS: Json = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "first_id": {"type": "string"},
        "last_id": {"type": "string"},
        "has_more": {"const": False},
        "data": {
            "type": "array",
            "items": _MODEL,
        },
    },
}
_STATE: Json = {
    "state": {"enum": ["ready", "loading", "down"]},
    "since": {"type": "string", "format": "date-time"},
    "reason": {"type": "string"},
}
_READY: Json = {
    "type": "object",
    "required": ["status", "models"],
    "properties": {
        "status": {"enum": ["ready", "unavailable"]},
        "models": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": [*_STATE, "engines"],
                "properties": {
                    **_STATE,
                    "engines": {
                        "type": "array",
                        "description": "Each of the model's engines, in the order of their URLs.",
                        "items": {"type": "object", "required": list(_STATE), "properties": _STATE},
                    },
                },
            },
        },
    },
}
_SPAN, _DATE = "[0-9]{1,3}[dh]", "202[0-9]-0[1-9]-[12][0-8]"
_SUMS: Json = {
    "type": "object",
    "required": ["requests", "prompt_tokens", "completion_tokens", "refused", "failed", "left"],
    "properties": {
        "name": {"type": ["string", "null"], "description": "null: refused before it was known."},
        "requests": {"type": "integer"},
        "prompt_tokens": {"type": "integer"},
        "cached_share": {"type": ["number", "null"], "description": "Of the prompt tokens, from 0 to 1."},
        "completion_tokens": {"type": "integer"},
        "mean_wait_ms": {"type": ["number", "null"], "description": "For a slot."},
        "longest_wait_ms": {"type": "number"},
        "refused": {"type": "integer", "description": "Status 400 to 499."},
        "failed": {"type": "integer", "description": "Status 500 and above, and streams that broke off."},
        "left": {"type": "integer", "description": "The client left before the end."},
        "reasons": {"type": "object", "description": "Requests that were not served, by reason."},
        "tools": {"type": "object", "description": "Requests by tool, from User-Agent."},
    },
}


def openai_api() -> Json:
    """The description of /v1."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in BY_PATH.values()], ref_template="#/components/schemas/{model}"
    )
    operations: Json = {path: {"post": _inference(path, model.__name__)} for path, model in BY_PATH.items()}
    operations[paths.MODELS] = {
        "get": {
            "summary": "The published models.",
            "responses": {
                "200": _json("The models.", _MODELS),
                "401": _json(_REFUSALS["401"], _OPENAI_ERROR),
            },
        }
    }
    operations[paths.MODELS + "/{model}"] = {
        "get": {
            "summary": "One model.",
            "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
            "responses": {
                "200": _json("The model.", _MODEL),
                "401": _json(_REFUSALS["401"], _OPENAI_ERROR),
                "404": _json(_REFUSALS["404"], _OPENAI_ERROR),
            },
        }
    }
    return _description(
        "Duoserve: models",
        "What the router serves under /v1, with the key. Every other path is a 404. Besides the parameters "
        "described here, those of config/parameters.yaml are taken; a null is as if it were not sent.",
        operations,
        {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "azure": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
    ) | {"security": [{"bearer": []}, {"header": []}, {"azure": []}]}


def health_api() -> Json:
    """The description of /health, /ready, /metrics and /usage."""
    alive = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
    text: Json = {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    operations = {
        paths.HEALTH: {
            "get": {"summary": "The router is alive.", "responses": {"200": _json("Alive.", alive)}}
        },
        paths.READY: {
            "get": {
                "summary": "Which models are ready.",
                "responses": {
                    "200": _json("At least one model is ready.", _READY),
                    "503": _json("No model is ready.", _READY),
                },
            }
        },
        paths.METRICS: {
            "get": {
                "summary": "Metrics; needs the key except from the networks in METRICS_OPEN_TO.",
                "responses": {"200": text, "401": _json(_REFUSALS["401"], _OPENAI_ERROR)},
            }
        },
        paths.USAGE: {"get": _usage()},
    }
    return _description(
        "Duoserve: health",
        "Whether the service is alive and ready, its metrics, and what was used.",
        operations,
        {},
    )


def _usage() -> Json:
    rows = {"type": "array", "items": {**_SUMS, "required": ["name", *_SUMS["required"]]}}
    parameters: Json = {
        "since": (
            {"type": "string", "default": "7d", "pattern": f"^({_SPAN}|{_DATE})$"},
            "A number of days or hours (`7d`, `24h`), or a date.",
        ),
        "utc_offset": (
            {"type": "integer", "default": 0, "minimum": -840, "maximum": 840},
            "Minutes by which the time zone of days and hours is ahead of UTC.",
        ),
        "key": (
            {"type": "string", "minLength": 1, "maxLength": 64},
            "Only this key's requests, by its name. Every key but the service's is restricted to itself.",
        ),
    }
    answer: Json = {
        "type": "object",
        "required": ["key", "since", "total", *VIEWS, "hours"],
        "properties": {
            "key": {"type": ["string", "null"], "description": "Whose requests these are; null: all."},
            "since": {"type": "string", "format": "date-time"},
            "log_begins": {
                "type": ["string", "null"],
                "description": "The oldest request, if the log does not reach back to `since`.",
            },
            "damaged_lines": {"type": "integer"},
            "unreadable_files": {"type": "array", "items": {"type": "string"}},
            "total": _SUMS,
            **dict.fromkeys(VIEWS, rows),
            "hours": {
                "type": "array",
                "description": "Requests by weekday, from Monday, and hour.",
                "items": {"type": "array", "items": {"type": "integer"}},
            },
        },
    }
    refusals = _REFUSALS | {
        "403": "Only the service's key may ask for others.",
        "429": "Too many reports are being made; see Retry-After.",
        "503": "The log could not be read.",
    }
    return {
        "summary": "What was used, by client, model, day and tool, from the request log.",
        "parameters": [
            {"name": name, "in": "query", "schema": schema, "description": text}
            for name, (schema, text) in parameters.items()
        ],
        "responses": {"200": _json("The sums.", answer)}
        | {status: _json(refusals[status], _OPENAI_ERROR) for status in ("400", "401", "403", "429", "503")},
    }


def _description(title: str, description: str, operations: Json, components: Json) -> Json:
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1", "description": description},
        "servers": [{"url": "http://127.0.0.1:4000"}],
        "paths": operations,
    } | ({"components": components} if components else {})


def _inference(path: str, model: str) -> Json:
    error = _ANTHROPIC_ERROR if path in paths.ANTHROPIC else _OPENAI_ERROR
    answer: Json = _json("The engine's answer.", {"type": "object"})
    if path not in (*paths.COUNTING, *paths.POOLING):
        answer["content"]["text/event-stream"] = {"schema": _EVENT}
    answer["headers"] = {
        name: {"description": text, "schema": {"type": kind}} for name, (kind, text) in _HEADERS.items()
    }
    return {
        "summary": _SUMMARIES[path],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}},
        },
        "responses": {"200": answer} | {status: _json(text, error) for status, text in _REFUSALS.items()},
    }


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def texts() -> dict[Path, str]:
    """The contents of the files, by path."""
    described = {"openai-api.yaml": openai_api(), "health-api.yaml": health_api()}
    head = (
        "# Written by `python -m router.contract`; change router/schemas.py or router/contract.py instead.\n"
    )
    return {
        FOLDER / name: head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
        for name, content in described.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in texts().items():
        path.write_text(text)
