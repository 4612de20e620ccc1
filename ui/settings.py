"""Settings of the chat app, read from the environment; `.env.example` holds the defaults."""

from typing import Annotated

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings

_Port = Annotated[int, Field(ge=1, le=65535)]
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - named, not bound
_LOOPBACK = ("127.", "::1", "localhost")


class InvalidSettings(Exception):
    """A setting is missing or impossible; the message is one line that names it and the remedy."""


class Settings(BaseSettings):
    """What the chat app needs to know, one field for each variable of `.env.example`."""

    litellm_master_key: Annotated[SecretStr, Field(min_length=32)]
    bind_address: Annotated[str, Field(min_length=1)]
    ui_port: _Port
    router_port: _Port
    router_url: str
    context_ratio: Annotated[float, Field(gt=0, le=1)]

    @property
    def router(self) -> str:
        """The router's base URL, without a slash at its end: ROUTER_URL, or this machine at ROUTER_PORT."""
        if self.router_url:
            return self.router_url.rstrip("/")
        host = _ANY_ADDRESS.get(self.bind_address, self.bind_address)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.router_port}"

    @property
    def only_this_machine(self) -> bool:
        """Whether nobody outside this machine can reach the app, so that it asks for no sign-in."""
        return self.bind_address.startswith(_LOOPBACK)


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        InvalidSettings: naming the first setting that is missing or impossible.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # the environment has them
    except ValidationError as failure:
        first = failure.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]).upper()
        raise InvalidSettings(
            f"{name}: {first['msg']}. Set it in .env (see .env.example), or start with ./run up, "
            "which fills in the defaults."
        ) from None
