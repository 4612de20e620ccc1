"""The paths that Duoserve serves. LiteLLM and vLLM have dozens more, many of them open without a key."""

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
INPUT_TOKENS = "/v1/responses/input_tokens"
EMBEDDINGS = "/v1/embeddings"
RERANK = "/v1/rerank"
MODELS = "/v1/models"
HEALTH = "/health"
READY = "/ready"
METRICS = "/metrics"
USAGE = "/usage"

# Path: method. No other path can be reached.
SERVED = {
    CHAT: "POST",
    COMPLETIONS: "POST",
    RESPONSES: "POST",
    INPUT_TOKENS: "POST",
    MESSAGES: "POST",
    COUNT_TOKENS: "POST",
    EMBEDDINGS: "POST",
    RERANK: "POST",
    MODELS: "GET",
    HEALTH: "GET",
    READY: "GET",
    METRICS: "GET",
    USAGE: "GET",
}
OPEN = (HEALTH, READY)  # no key needed
INFERENCE = tuple(path for path, method in SERVED.items() if method == "POST")
ANTHROPIC = (MESSAGES, COUNT_TOKENS)
CONVERSATIONS = (CHAT, MESSAGES, RESPONSES)
COUNTING = (COUNT_TOKENS, INPUT_TOKENS)  # nothing is generated: no slot, no stream
POOLING = (EMBEDDINGS, RERANK)  # of vLLM's pooling runner: nothing is generated, no stream
_ALSO = {"/v2/rerank": RERANK}  # the same, to Cohere's clients


def method_of(path: str) -> str | None:
    """The method that `path` takes; None if it is not served. Each model has a path of its own."""
    return "GET" if path.startswith(f"{MODELS}/") else SERVED.get(path)


def canonical(path: str) -> str:
    """The served path that is meant by `path`: without a slash at the end, and with `/v1` once."""
    shorter = path.removesuffix("/")
    if method_of(shorter):
        return shorter
    if shorter in _ALSO:
        return _ALSO[shorter]
    for meant in (shorter.removeprefix("/v1"), f"/v1{shorter}"):
        if meant.startswith("/v1/") and method_of(meant):
            return meant
    return path
