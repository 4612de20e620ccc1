"""vLLM's own words about a request, as its clients see them."""

import json

import pytest

from router.refusals import engine_broke_off, engine_refused

FOUND = """2 validation errors:
  {'type': 'string_type', 'loc': 'body.messages.0.content', 'msg': 'Input should be a string'}
  {'type': 'literal_error', 'loc': 'body.messages.0.content.0.type', 'msg': "Input should be 'text'"}"""
BRANCHES = """3 validation errors:
  {'type': 'literal_error', 'loc': 'body.messages.0.SystemParam.role', 'msg': "Input should be 'system'"}
  {'type': 'string_type', 'loc': 'body.messages.0.SystemParam.name', 'msg': 'Input should be a string'}
  {'type': 'string_type', 'loc': 'body.messages.0.UserParam.name', 'msg': 'Input should be a string'}"""
DUMPED = """2 validation errors for ValidatorIterator
0.TextParam.text
  Field required [type=missing, input_value={'type': 'secret'}, input_type=dict]
    For further information visit https://errors.pydantic.dev/2.14/v/missing
0.TextParam.type
  Input should be 'text' [type=literal_error, input_value='secret', input_type=str]"""


@pytest.mark.parametrize(
    ("sent", "message", "param", "told"),
    [
        ("messages", FOUND, None, "'messages.0.content.0.type' is not valid: input should be 'text'."),
        ("messages", BRANCHES, None, "'messages.0.name' is not valid: input should be a string."),
        ("messages", DUMPED, None, "'messages' is not valid: field required."),
        (
            "temperature",
            "temperature must be in [0, 2], got 3.0. (parameter=temperature, value=3.0)",
            "temperature",
            "temperature must be in [0, 2], got 3.0.",
        ),
        ("min_tokens", "min_tokens must be less than max_tokens=8, got 9.", None, None),
        ("presence_penalty", "presence_penalty must be in [-2, 2], got 3.", None, None),
        (
            "bad_words",
            "Too many bad words after tokenization: 129. (parameter=bad_words, value=['a',\n'b'])",
            None,
            "'bad_words' is not valid: Too many bad words after tokenization: 129.",
        ),
        (
            "n",
            "n must be at most 16384, got 20000. To increase this limit, set the VLLM_MAX_N_SEQUENCES "
            "environment variable.",
            None,
            "n must be at most 16384, got 20000.",
        ),
        (
            "thinking_token_budget",
            "thinking_token_budget is set but reasoning_config is not configured. Please set "
            "--reasoning-parser and/or --reasoning-config to use thinking_token_budget.",
            None,
            "thinking_token_budget is set but reasoning_config is not configured.",
        ),
        (
            "structured_outputs",
            "You can only use one kind of structured outputs constraint but multiple are specified: "
            "{'json': 'x'}",
            None,
            "'structured_outputs' is not valid: You can only use one kind of structured outputs constraint "
            "but multiple are specified",
        ),
        (
            "response_format",
            "Failed to transform json schema into a grammar: Unsupported type 'banana'",
            None,
            "'response_format' is not valid: Failed to transform json schema into a grammar: Unsupported "
            "type 'banana'",
        ),
        (
            "output_config",
            "[12:00:00] <path>:55: Failed to transform regex into a grammar: Lookahead is not supported yet.",
            None,
            "'output_config' is not valid: Failed to transform regex into a grammar: Lookahead is not "
            "supported yet.",
        ),
        (
            "structured_outputs",
            "Choice '[]' cannot be an empty list",
            None,
            "'structured_outputs' is not valid: Choice '[]' cannot be an empty list",
        ),
        (
            "messages",
            "coder is not a multimodal model (parameter=model, value=coder)",
            None,
            "'messages' is not valid: the model 'coder' reads text only",
        ),
        (
            "input",
            "Cannot apply chat template to an empty conversation. Provide at least one message.",
            None,
            "'input' is not valid: there is no text in it",
        ),
        (
            "prompt",
            "Token id 99999 is out of vocabulary",
            None,
            "'prompt' is not valid: Token id 99999 is out of vocabulary",
        ),
    ],
)
def test_a_sentence_names_the_parameter_and_nothing_behind_the_service(
    sent: str, message: str, param: str | None, told: str | None
) -> None:
    body = json.dumps({"error": {"message": message, "param": param, "code": 400}}).encode()
    error = engine_refused(400, body, "coder", {"model", sent})
    assert (error.status, error.message) == (400, told or message)
    assert error.param and error.param.partition(".")[0] == sent


@pytest.mark.parametrize(("engines", "ours"), [(400, 400), (404, 404), (422, 400), (501, 400), (500, 503)])
def test_only_what_the_request_caused_is_the_requests_fault(engines: int, ours: int) -> None:
    body = json.dumps({"error": {"message": "beams are not supported"}}).encode()
    assert engine_refused(engines, body, "coder", ()).status == ours


@pytest.mark.parametrize(("sent", "ours"), [("response_format", 400), ("messages", 503)])
def test_an_answer_that_its_grammar_leads_nowhere(sent: str, ours: int) -> None:
    body = json.dumps({"error": {"message": "Internal server error", "code": 500}}).encode()
    error = engine_refused(500, body, "coder", {"model", sent})
    assert (error.status, error.param) == (ours, sent if ours == 400 else None)


@pytest.mark.parametrize(
    ("events", "status", "told"),
    [
        (
            b'data: {"error": {"message": "Invalid grammar.", "code": 400}}\n\ndata: [DONE]\n\n',
            400,
            "Invalid grammar.",
        ),
        (b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n', 503, "failed to answer"),
        (
            b'event: error\ndata: {"type": "error", "error": {"message": "EngineCore died"}}\n\n',
            503,
            "failed to answer",
        ),
        (
            b'event: error\ndata: {"type": "error", "error": {"message": "2 validation errors for Chunk\\n '
            b"input_value={'error': {'message': 'In...am': None, 'code': 400}}\"}}\n\n",
            400,
            "without 'stream' it says why",
        ),
        (
            b'data: {"error": {"message": "Internal server error", "code": 500}}\n\n',
            400,
            "cannot be followed",
        ),
        (
            b'event: error\ndata: {"type": "error", "error": {"message": "2 validation errors for Chunk\\n '
            b"input_value={'error': {'message': 'In...am': None, 'code': 500}}\"}}\n\n",
            400,
            "cannot be followed",
        ),
        (b'data: {"error": "cut', 503, "failed to answer"),
    ],
)
def test_an_error_at_the_end_of_a_stream(events: bytes, status: int, told: str) -> None:
    error = engine_broke_off(events, "coder", {"structured_outputs"})
    assert error.status == status
    assert told in error.message
