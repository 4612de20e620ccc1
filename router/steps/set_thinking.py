"""Whether the model thinks before it answers: each API's words for it, in those of the model's family."""

from collections.abc import Mapping
from typing import Any

from router.chat_families import DEFAULT_THINKING, EFFORTS, ChatFamily
from router.errors import invalid
from router.exchange import Exchange
from router.models import Model
from router.paths import CHAT, COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES

Json = dict[str, Any]
# Asked to think, without a word about how much.
_THINK = "medium"
# Where a chat completion may ask for it, the most specific first.
_CHAT_NAMES = ("reasoning_effort", "reasoning", "thinking", "enable_thinking")
# What a request may set by itself in chat_template_kwargs.
_SWITCHES = ("enable_thinking", "thinking", "thinking_budget", "reasoning_effort")


class SetThinking:
    """Sets `chat_template_kwargs`, and the effort where the family's template knows efforts
    (config/chat_families.yaml); x-duoserve-set says `thinking=on` or `thinking=off`. A model that does not
    reason is asked nothing. The effort of a name (`model_group_alias`) goes before what the request says.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        families: Mapping[str, ChatFamily | None],
        efforts: Mapping[str, str],
    ) -> None:
        """`families` are by alias, `efforts` by published name."""
        self._models = models
        self._families = families
        self._efforts = efforts

    def __call__(self, exchange: Exchange) -> None:
        """Raises ApiError: 400; the effort is none that there is."""
        if exchange.path not in (CHAT, MESSAGES, COUNT_TOKENS, RESPONSES, INPUT_TOKENS):
            return
        if not self._models[exchange.alias].reasons:
            _drop(exchange)
            return
        body, named = exchange.body, self._efforts.get(exchange.name)
        asked = _asked(exchange)
        own = body.get("chat_template_kwargs", {})
        if named:
            own = {name: value for name, value in own.items() if name not in _SWITCHES}
            asked = named
        elif any(name in own for name in _SWITCHES):
            return
        if asked is None:
            _limit_effort(exchange, None)
            return
        family = self._families[exchange.alias]
        thinking = family.thinking if family else DEFAULT_THINKING
        on = asked != "none"
        body["chat_template_kwargs"] = own | dict(thinking.think if on else thinking.quick)
        exchange.note_set("thinking", "on" if on else "off")
        _limit_effort(exchange, thinking.nearest(asked))
        if not on:
            body.pop("thinking_token_budget", None)
        if exchange.path in (MESSAGES, COUNT_TOKENS) and named and (on or "thinking" in body):
            body["thinking"] = {"type": "adaptive" if on else "disabled"}


def _asked(exchange: Exchange) -> str | None:
    """The effort that the request asks for, or None. Chat completions have only vLLM's words afterwards."""
    body = exchange.body
    if exchange.path in (RESPONSES, INPUT_TOKENS):
        return _known("reasoning.effort", (body.get("reasoning") or {}).get("effort"))
    if exchange.path in (MESSAGES, COUNT_TOKENS):
        kind, effort = (
            (body.get("thinking") or {}).get("type"),
            (body.get("output_config") or {}).get("effort"),
        )
        effort = _known("output_config.effort", effort)
        if kind is None:
            return None  # an effort alone is about the length of the answer
        return "none" if kind == "disabled" else effort or _THINK
    found = [_of_chat(name, body.pop(name), body) for name in _CHAT_NAMES if name in body]
    return next((effort for effort in found if effort), None)


def _of_chat(name: str, value: Any, body: Json) -> str | None:
    if isinstance(value, bool):
        return _THINK if value else "none"
    if isinstance(value, str):
        return _known(name, value)
    kind, effort, enabled = value.get("type"), value.get("effort"), value.get("enabled")
    budget = value.get("budget_tokens", value.get("max_tokens"))
    if isinstance(budget, int) and not isinstance(budget, bool) and budget > 0:
        body.setdefault("thinking_token_budget", budget)
    if value.get("exclude") is True:
        body.setdefault("include_reasoning", False)
    if kind == "disabled" or enabled is False:
        return "none"
    asks = budget or enabled or kind in ("enabled", "adaptive")
    return _known(f"{name}.effort", effort) or (_THINK if asks else None)


def _known(name: str, effort: Any) -> str | None:
    if effort is not None and effort not in EFFORTS:
        raise invalid(name, f"must be one of {', '.join(EFFORTS)}")
    return effort  # type: ignore[no-any-return]


def _limit_effort(exchange: Exchange, effort: str | None) -> None:
    """Set the effort to one that the template knows, or leave it out, which means something to vLLM too."""
    body = exchange.body
    if exchange.path == CHAT:
        if effort:
            body["reasoning_effort"] = effort
    elif exchange.path in (RESPONSES, INPUT_TOKENS):
        if effort:
            body["reasoning"] = (body.get("reasoning") or {}) | {"effort": effort}
    elif effort:
        body["output_config"] = (body.get("output_config") or {}) | {"effort": effort}
    elif (body.get("output_config") or {}).pop("effort", None):
        exchange.ignore("output_config.effort")


def _drop(exchange: Exchange) -> None:
    """How much to reason means nothing to a model that does not reason."""
    body = exchange.body
    if exchange.path in (RESPONSES, INPUT_TOKENS):
        if (body.get("reasoning") or {}).get("effort"):
            exchange.ignore("reasoning.effort")  # it stays, since the response repeats it
        return
    for name in (*_CHAT_NAMES, "thinking_token_budget"):
        if body.pop(name, None) is not None:
            exchange.ignore(name)
    if (body.get("output_config") or {}).pop("effort", None):
        exchange.ignore("output_config.effort")
