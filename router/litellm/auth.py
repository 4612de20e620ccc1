"""LiteLLM's own look at the key: its `custom_auth` hook, named in config/litellm.yaml."""

import hmac
import os

from fastapi import HTTPException, Request
from litellm.proxy._types import UserAPIKeyAuth


async def master_key_only(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Lets nothing pass but the master key, which the relay sends.

    LiteLLM's own check goes on to users, teams and budgets, of which there are none here; that costs a
    millisecond of CPU a request.

    Raises:
        HTTPException: 401, it is another key.
    """
    if not hmac.compare_digest(api_key.encode(), os.environ["LITELLM_MASTER_KEY"].encode()):
        raise HTTPException(401)
    return UserAPIKeyAuth(api_key="master")
