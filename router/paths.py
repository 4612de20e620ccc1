"""The paths that Duoserve serves. LiteLLM and vLLM have dozens more, many of them open without a key."""

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
MODELS = "/v1/models"
HEALTH = "/health"
READY = "/ready"
METRICS = "/metrics"

# Path: method. No other path can be reached.
SERVED = {
    CHAT: "POST",
    COMPLETIONS: "POST",
    RESPONSES: "POST",
    MESSAGES: "POST",
    COUNT_TOKENS: "POST",
    MODELS: "GET",
    HEALTH: "GET",
    READY: "GET",
    METRICS: "GET",
}
OPEN = (HEALTH, READY)  # no key needed
INFERENCE = tuple(path for path, method in SERVED.items() if method == "POST")
ANTHROPIC = (MESSAGES, COUNT_TOKENS)
