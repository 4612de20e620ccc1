"""LiteLLM's check of the key: its `custom_auth` hook, named in its configuration by proxy.py."""

import hmac
import os

from fastapi import HTTPException, Request
from litellm.proxy._types import UserAPIKeyAuth

# How the router tells LiteLLM, for its callbacks, who asks.
KEY_HEADER = "x-duoserve-key"
CLIENT_HEADER = "x-duoserve-client"


async def master_key_only(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Accepts only the master key, which the router sends.

    LiteLLM's own check looks for users, teams and budgets, of which there are none here, and costs a
    millisecond of CPU per request.

    Raises:
        HTTPException: 401; it is another key.
    """
    if not hmac.compare_digest(api_key.encode(), os.environ["LITELLM_MASTER_KEY"].encode()):
        raise HTTPException(401)
    headers = request.headers
    return UserAPIKeyAuth(
        api_key="master", key_alias=headers.get(KEY_HEADER), end_user_id=headers.get(CLIENT_HEADER)
    )
