"""LiteLLM's check of the key, in place of its own: a dependency of its endpoints, overridden by proxy.py."""

import hmac
import os

from fastapi import HTTPException, Request
from litellm.proxy._types import UserAPIKeyAuth

from router.litellm.config import CLIENT_HEADER, KEY_HEADER


async def master_key_only(request: Request) -> UserAPIKeyAuth:
    """Accepts only the master key, which the router sends.

    LiteLLM's own check looks for users, teams and budgets, of which there are none here. Even with its hook
    `custom_auth` it takes almost half of LiteLLM's CPU per request.

    Raises:
        HTTPException: 401; it is another key.
    """
    headers = request.headers
    given, expected = headers.get("authorization", ""), f"Bearer {os.environ['LITELLM_MASTER_KEY']}"
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise HTTPException(401)
    return UserAPIKeyAuth(
        api_key="master", key_alias=headers.get(KEY_HEADER), end_user_id=headers.get(CLIENT_HEADER)
    )
