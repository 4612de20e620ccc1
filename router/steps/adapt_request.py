"""What OpenAI, Anthropic and their older clients write, in the words that vLLM takes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from router.errors import invalid
from router.exchange import Exchange, Priority
from router.json_schema import relaxed
from router.models import Model
from router.paths import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    INPUT_TOKENS,
    MESSAGES,
    RERANK,
    RESPONSES,
)

Json = dict[str, Any]
# vLLM decodes greedily below 0.01, and refuses to give several choices then.
_NEARLY_GREEDY = 0.01
_OPENAI_TEMPERATURE = 1.0
_MOST_TEXTS = 2048  # of a request to OpenAI's embeddings
# The Responses API's tools that become functions for the model; the others run at OpenAI.
_OUR_TOOLS = ("function", "custom", "namespace")
# Blocks of tools that ran at Anthropic, in a conversation that began there.
_HOSTED_BLOCKS = frozenset(
    (
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "mcp_tool_use",
        "mcp_tool_result",
        "container_upload",
        "compaction",
    )
)
# Items of a conversation that are no text for the model: tools that ran at OpenAI or in an agent's own way.
_HOSTED_ITEMS = frozenset(
    (
        "additional_tools",
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "file_search_call",
        "image_generation_call",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    )
)


def adapt_request(exchange: Exchange, *, models: Mapping[str, Model]) -> None:
    """Rewrites the body. What is left out is named in x-duoserve-ignored, what is set in x-duoserve-set.

    Raises:
        ApiError: 400; a block of a message cannot be turned into text.
    """
    for adapt in _BY_PATH[exchange.path]:
        adapt(exchange, models[exchange.alias])


def _messages(exchange: Exchange, _: Model) -> None:
    """Messages without nulls, `content` apart, and with the arguments of calls as text, as OpenAI does."""
    body = exchange.body
    body["messages"] = [
        {key: value for key, value in message.items() if value is not None or key == "content"}
        for message in body["messages"]
    ]
    for message in body["messages"]:
        for call in message.get("tool_calls", []):
            function = call.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), dict):
                call["function"] = function | {"arguments": orjson.dumps(function["arguments"]).decode()}
        _refuse_files("messages", message.get("content"))


def _items(exchange: Exchange, _: Model) -> None:
    """Only items that the model can be shown."""
    items = exchange.body["input"]
    if isinstance(items, str):
        return
    shown = []
    for item in items:
        kind = _kind(item)
        if kind == "item_reference":
            raise invalid("input", "refers to an item, but no items are stored; send the item itself")
        if kind in _HOSTED_ITEMS:
            exchange.ignore(f"input.{kind}")
            continue
        _refuse_files("input", item.get("content"))
        if isinstance(item.get("content"), list):
            item = item | {"content": [_without_refusal(part) for part in item["content"]]}
            if kind is None and item.get("role") == "assistant":
                item = {"type": "message", **item}  # without it vLLM refuses an answer's parts
        shown.append(item)
    exchange.body["input"] = shown


def _without_refusal(part: Any) -> Any:
    """`part` as text if it is a refusal, which vLLM does not know in the Responses API."""
    if isinstance(part, dict) and part.get("type") == "refusal":
        return {"type": "output_text", "text": part.get("refusal"), "annotations": []}
    return part


def _refuse_files(param: str, content: Any) -> None:
    kinds = (
        [part.get("type") for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    )
    for kind in ("file", "input_file"):
        if kind in kinds:
            raise invalid(param, f"has a part of type '{kind}'; only text can be read, so send its text")


def old_functions(exchange: Exchange, _: Model) -> None:
    """`functions` and `function_call`, which became `tools` and `tool_choice` in 2023: one call at a time."""
    body = exchange.body
    functions, choice = body.pop("functions", None), body.pop("function_call", None)
    if functions and "tools" not in body:
        body["tools"] = [{"type": "function", "function": function} for function in functions]
        body["parallel_tool_calls"] = False
        exchange.old_functions = True
    elif "tools" not in body and not _is_free(choice):
        raise invalid("function_call", "asks for a function, but 'functions' has none")
    if choice is not None and "tool_choice" not in body:
        body["tool_choice"] = choice if isinstance(choice, str) else {"type": "function", "function": choice}
    call_id = ""
    for i, message in enumerate(body["messages"]):
        if message.get("function_call"):
            call_id = f"call_{i}"
            call = {"id": call_id, "type": "function", "function": message["function_call"]}
            rest = {key: value for key, value in message.items() if key != "function_call"}
            body["messages"][i] = rest | {"tool_calls": [call]}
        elif message["role"] == "function":
            body["messages"][i] = message | {"role": "tool", "tool_call_id": call_id}


def allowed_tools(exchange: Exchange, _: Model) -> None:
    """The `tool_choice` of type `allowed_tools`: only those tools, with its mode as the choice."""
    body = exchange.body
    choice = body.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return
    allowed = choice.get("allowed_tools", choice)
    if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list):
        raise invalid("tool_choice", "lacks the list 'tools'")
    names = {_name(tool) for tool in allowed["tools"]}
    body["tools"] = [tool for tool in body.get("tools", []) if _name(tool) in names]
    body["tool_choice"] = allowed.get("mode", "auto")


def _tools(exchange: Exchange, _: Model) -> None:
    """Only tools that the model can be shown. An empty list is as if none had been sent."""
    body = exchange.body
    if "tools" not in body:
        body["tools"] = []
    shown = [tool for tool in body["tools"] if _is_ours(tool, exchange.path)]
    left_out = [tool for tool in body["tools"] if not _is_ours(tool, exchange.path)]
    for tool in left_out:
        exchange.ignore(f"tools.{tool.get('type') or tool.get('name')}")
    body["tools"] = [_complete(tool, exchange) for tool in shown]
    choice = body.get("tool_choice")
    names = {_name(tool) for tool in left_out} | {_kind(tool) for tool in left_out}
    if isinstance(choice, dict) and left_out and (_name(choice) or _kind(choice)) in names:
        exchange.ignore("tool_choice")
        del body["tool_choice"]
    if not shown:
        del body["tools"]
        if not _is_free(body.pop("tool_choice", None)):
            if not left_out:
                raise invalid("tool_choice", "asks for a tool, but 'tools' has none")
            exchange.ignore("tool_choice")


def _is_free(choice: Any) -> bool:
    """Whether the model may answer without a tool."""
    kind = choice.get("type", "function") if isinstance(choice, dict) else choice
    return kind in (None, "none", "auto")


def _is_ours(tool: Json, path: str) -> bool:
    if path in (RESPONSES, INPUT_TOKENS):
        return tool.get("type") in (None, *_OUR_TOOLS)
    if path == CHAT:
        return tool.get("type") in (None, "function")
    return tool.get("type") in (None, "custom") or "input_schema" in tool


def _complete(tool: Json, exchange: Exchange) -> Json:
    """`tool` with a schema that allows only objects as arguments, and without a grammar, which vLLM lacks."""
    if tool.get("type") == "namespace" and isinstance(tool.get("tools"), list):
        return tool | {"tools": [_complete(one, exchange) for one in tool["tools"] if isinstance(one, dict)]}
    if tool.get("type") == "custom" and "input_schema" not in tool:
        if isinstance(tool.get("format"), dict) and tool["format"].get("type") == "grammar":
            exchange.ignore(f"tools.{tool.get('name')}.format")
            return {key: value for key, value in tool.items() if key != "format"}
        return tool
    if isinstance(tool.get("function"), dict):
        return tool | {"function": _with_object(tool["function"], "parameters")}
    return _with_object(tool, "input_schema" if exchange.path in (MESSAGES, COUNT_TOKENS) else "parameters")


def _with_object(function: Json, key: str) -> Json:
    schema = function.get(key)
    if schema is None or (isinstance(schema, dict) and "type" not in schema):
        return function | {key: {"type": "object"} | (schema or {})}
    if isinstance(schema, dict) and schema["type"] != "object":
        if not isinstance(schema["type"], list) or "object" not in schema["type"]:
            raise invalid(
                "tools", f"has a function whose '{key}' are of type '{schema['type']}', not 'object'"
            )
        return function | {key: schema | {"type": "object"}}
    return function


def _name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    inner = tool.get("function") or tool.get("custom")
    name = inner.get("name") if isinstance(inner, dict) else tool.get("name", tool.get("server_label"))
    return name if isinstance(name, str) else None


def _kind(part: Json) -> str | None:
    kind = part.get("type")
    return kind if isinstance(kind, str) else None


def _sampling(exchange: Exchange, model: Model) -> None:
    """The edges of OpenAI's ranges: `top_p` 0, and several choices without a temperature."""
    body = exchange.body
    if body.get("top_p") == 0:  # only the likeliest token is left
        del body["top_p"]
        body["temperature"] = 0
    if body.get("n", 1) > 1:
        if "temperature" not in body and model.greedy:
            body["temperature"] = _OPENAI_TEMPERATURE
            exchange.note_set("temperature", 1)
        elif "temperature" in body and body["temperature"] < _NEARLY_GREEDY:
            body["temperature"] = _NEARLY_GREEDY
            exchange.note_set("temperature", _NEARLY_GREEDY)


def _sequences(exchange: Exchange, model: Model) -> None:
    """Counts what one request makes the engine decode, which is bounded by its slots."""
    prompt, n = exchange.body.get("prompt"), exchange.body.get("n", 1)
    prompts = len(prompt) if isinstance(prompt, list) and not all(isinstance(t, int) for t in prompt) else 1
    exchange.sequences = prompts * n
    if exchange.sequences > model.slots:
        asked = f"{prompts} prompts, 'n' {n}" if prompts > 1 else f"'n' is {n}"
        raise invalid(
            "prompt" if prompts > 1 else "n",
            f"asks for {exchange.sequences} answers ({asked}); at most {model.slots} are allowed in one "
            "request, as many as the engine decodes at once",
        )


def _inputs(exchange: Exchange, model: Model) -> None:
    """Texts take slots as prompts do. One alone is most likely a search, for which somebody waits."""
    texts = exchange.body["input"]
    one = isinstance(texts, str) or isinstance(texts[0], int)
    _pooled(exchange, model, "input", 1 if one else len(texts))


def _documents(exchange: Exchange, model: Model) -> None:
    """Documents as texts, each of which takes a slot."""
    body = exchange.body
    texts = [text if isinstance(text, str) else text.get("text") for text in body["documents"]]
    if not all(isinstance(text, str) for text in texts):
        raise invalid("documents", "has one without a text: send texts, or objects with a 'text'")
    body["documents"] = texts
    _pooled(exchange, model, "documents", len(body["documents"]))
    exchange.priority = Priority.KEYSTROKE  # part of a search


def _pooled(exchange: Exchange, model: Model, param: str, texts: int) -> None:
    if texts > _MOST_TEXTS:
        raise invalid(param, f"has {texts:,} texts; at most {_MOST_TEXTS:,} are allowed in one request")
    # The engine reads more than it has slots for in turn: no token of an answer is late for that.
    exchange.sequences = min(texts, model.slots)
    exchange.priority = Priority.KEYSTROKE if texts == 1 else Priority.INDEXING


def _logprobs(exchange: Exchange, _: Model) -> None:
    """0 and 1 for false and true in chat, and the reverse in completions."""
    if "logprobs" in exchange.body:
        exchange.body["logprobs"] = (bool if exchange.path == CHAT else int)(exchange.body["logprobs"])


def _stream_options(exchange: Exchange, _: Model) -> None:
    options = exchange.body.get("stream_options")
    if options and options.pop("include_obfuscation", None):
        exchange.ignore("stream_options.include_obfuscation")


def _output_format(exchange: Exchange, _: Model) -> None:
    """Anthropic's earlier `output_format`, and what vLLM does not read of `output_config`."""
    body = exchange.body
    if "output_format" in body:
        body["output_config"] = {"format": body.pop("output_format")} | body.get("output_config", {})
    config = body.get("output_config")
    if config is None:
        return
    for name in sorted(config.keys() - {"effort", "format"}):
        exchange.ignore(f"output_config.{name}")
    known = {name: config.get(name) for name in ("effort", "format")}
    body["output_config"] = {name: value for name, value in known.items() if value is not None}


def _blocks(exchange: Exchange, _: Model) -> None:
    """Documents and search results as the text that they hold."""
    body = exchange.body
    if isinstance(body.get("system"), list):
        body["system"] = list(_texts(body["system"], exchange))
    for message in body["messages"]:
        if isinstance(message.get("content"), list):
            message["content"] = list(_texts(message["content"], exchange))


def _texts(blocks: Iterable[Json], exchange: Exchange) -> Iterable[Json]:
    for block in blocks:
        kind = _kind(block)
        if kind == "document":
            yield {"type": "text", "text": _document(block)}
        elif kind == "search_result":
            heading = [str(block[key]) for key in ("title", "source") if block.get(key)]
            yield {"type": "text", "text": "\n".join([*heading, _joined(block.get("content"))])}
        elif kind in _HOSTED_BLOCKS:
            exchange.ignore(f"messages.{kind}")
        elif kind == "tool_result" and isinstance(block.get("content"), list):
            parts = [part for part in block["content"] if isinstance(part, dict)]
            yield block | {"content": list(_texts(parts, exchange))}
        else:
            yield block


def _document(block: Json) -> str:
    source = block.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    if kind not in ("text", "content"):
        raise invalid("messages", f"has a document of type '{kind}'; only text can be read, so send its text")
    heading = [str(block[key]) for key in ("title", "context") if block.get(key)]
    return "\n".join([*heading, _joined(source.get("data", source.get("content")))])  # type: ignore[union-attr]


def _joined(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def _schemas(exchange: Exchange, _: Model) -> None:
    """Schemas for the answer, without what cannot constrain it."""
    body = exchange.body
    form = body.get("response_format", {})
    inner = form.get("json_schema")
    if form.get("type") == "json_schema" and isinstance(inner, dict) and inner.get("schema") is None:
        body["response_format"] = {"type": "json_object"}  # in OpenAI's reference the schema is optional
    for place, key in (
        (("response_format", "json_schema"), "schema"),
        (("structured_outputs",), "json"),
        (("text", "format"), "schema"),
        (("output_config", "format"), "schema"),
    ):
        holder: Any = body
        for part in place:
            holder = holder.get(part) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and isinstance(holder.get(key), dict):
            holder[key], lost = relaxed(holder[key])
            for keyword in sorted(lost):
                exchange.ignore(f"{place[0]}.{keyword}")


Adaptation = Callable[[Exchange, Model], None]
_COMMON: tuple[Adaptation, ...] = (_sampling, _stream_options, _schemas)
_BY_PATH: dict[str, tuple[Adaptation, ...]] = {
    CHAT: (_messages, old_functions, _sequences, allowed_tools, _tools, _logprobs, *_COMMON),
    COMPLETIONS: (_sequences, _logprobs, *_COMMON),
    RESPONSES: (_items, allowed_tools, _tools, *_COMMON),
    INPUT_TOKENS: (_items, allowed_tools, _tools),
    MESSAGES: (_output_format, _blocks, _tools, *_COMMON),
    COUNT_TOKENS: (_output_format, _blocks, _tools),
    EMBEDDINGS: (_inputs,),
    RERANK: (_documents,),
}
