import pytest

from router.litellm.remote import plain


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (
            "litellm.BadRequestError: OpenAIException - mock fault\n\nLiteLLM: model group 'big' failed with "
            "the error above. No fallback was attempted.",
            "mock fault",
        ),
        (
            'litellm.BadRequestError: AnthropicException - {"type": "error", "error": {"type": "invalid", '
            '"message": "max_tokens: too many"}}. Handle with `litellm.BadRequestError`.',
            "max_tokens: too many",
        ),
        ("litellm.BadRequestError: GeminiException BadRequestError - no", "no"),
        ("", "The provider gave no reason."),
    ],
)
def test_a_provider_is_quoted_without_litellm(written: str, words: str) -> None:
    assert plain(written) == words
