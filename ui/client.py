"""The chat app's view of the router: a typed client over the OpenAI SDK."""

from collections.abc import Iterator
from typing import Literal, TypedDict

from openai import OpenAI

from ui.settings import Settings


class Message(TypedDict):
    """One message as the chat completions API takes it."""

    role: Literal["system", "user", "assistant"]
    content: str


class Router:
    """Talks to the router at the address and with the key of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._api = OpenAI(
            base_url=f"{settings.router}/v1",
            api_key=settings.litellm_master_key.get_secret_value(),
            max_retries=0,
        )

    def answer(self, model: str, messages: list[Message]) -> Iterator[str]:
        """Stream the answer to `messages`, piece by piece; closing the iterator frees the engine.

        Raises:
            openai.OpenAIError: the router refused, or was not reached.
        """
        with self._api.chat.completions.create(
            model=model,
            messages=messages,  # type: ignore[arg-type]
            stream=True,
        ) as stream:
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content
