"""The client for requests to the service, on this machine or elsewhere."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import httpx

from services.stack.failure import Failure


def client(base: str, **options: Any) -> httpx.Client:
    """A client for the service at `base`; `options` are those of httpx.

    The proxies and certificates that the shell names are for other machines, and are not used for this one.

    Raises:
        Failure: another machine is meant, and httpx cannot use what the shell names.
    """
    here = _is_here(base)
    try:
        return httpx.Client(trust_env=not here, verify=not here, **options)
    except (ValueError, ImportError, OSError) as error:
        raise Failure(
            "the proxy or the certificates that this shell names (ALL_PROXY, HTTPS_PROXY, SSL_CERT_FILE) "
            f"cannot be used ({' '.join(str(error).split())[:100]}); unset or fix them."
        ) from None


def _is_here(base: str) -> bool:
    parts = urlsplit(base)
    if parts.scheme != "http":
        return False
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"
