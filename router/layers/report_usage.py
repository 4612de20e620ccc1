"""GET /usage: what was used, from the request log."""

import asyncio
import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from router.errors import ApiError, invalid, unavailable
from router.exchange import Exchange
from router.paths import USAGE
from router.settings import ROOT
from router.usage import start_of

_SINCE = "7d"
_LARGEST_OFFSET = 14 * 60
_LONGEST_SECONDS = 300
# For so long, whoever asks for the same report gets the one that was made.
_KEPT_SECONDS = 10
_MOST_REPORTS = 16
_log = logging.getLogger(__name__)


class ReportUsage:
    """Answers GET /usage with the report of `./run usage --json`; other requests pass.

    Reports are made one at a time, and in a process of their own, because reading a long log takes seconds of
    CPU. The service's key may ask for all requests or those of one key, every other key for its own.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        """`folder` holds the log."""
        self._app = app
        self._folder = folder
        self._turn = asyncio.Lock()
        self._reports: dict[tuple[str, ...], asyncio.Task[bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != USAGE:
            await self._app(scope, receive, send)
            return
        content = await asyncio.shield(self._report(_arguments(Request(scope), Exchange.of(scope).key_name)))
        await Response(content, media_type="application/json")(scope, receive, send)

    def _report(self, arguments: tuple[str, ...]) -> asyncio.Task[bytes]:
        if arguments not in self._reports:
            if len(self._reports) >= _MOST_REPORTS:
                raise ApiError(
                    429,
                    f"Too many reports are being made. Try again in {_KEPT_SECONDS} s.",
                    reason="reports",
                    code="rate_limit_exceeded",
                    headers={"retry-after": str(_KEPT_SECONDS)},
                )
            task = self._reports[arguments] = asyncio.create_task(self._make(arguments))
            task.add_done_callback(lambda _: self._forget_later(arguments))
        return self._reports[arguments]

    def _forget_later(self, arguments: tuple[str, ...]) -> None:
        asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._reports.pop, arguments, None)

    async def _make(self, arguments: tuple[str, ...]) -> bytes:
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "router.show_usage",
                    "--json",
                    f"--folder={self._folder}",
                    *arguments,
                ),
                env={},  # it needs no secrets
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=ROOT,
            )
            try:
                async with asyncio.timeout(_LONGEST_SECONDS):
                    content, problem = await process.communicate()
            except TimeoutError:
                problem = f"it took more than {_LONGEST_SECONDS} s".encode()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            _log.error("no report of usage: %s", problem.decode(errors="replace").strip()[-500:])
            text = "The request log could not be read. ./run logs router has the reason."
            raise unavailable("usage_unavailable", text, _KEPT_SECONDS)
        return content


def _arguments(request: Request, key_name: str) -> tuple[str, ...]:
    """Those of `./run usage`, checked."""
    query = request.query_params
    given = query.get("utc_offset", "0")
    if not given.lstrip("-").isdecimal() or not given.isascii() or abs(int(given)) > _LARGEST_OFFSET:
        raise invalid(
            "utc_offset", f"must be a number of minutes from -{_LARGEST_OFFSET} to {_LARGEST_OFFSET}"
        )
    since = query.get("since", _SINCE)
    try:
        start_of(since, timedelta(minutes=int(given)), datetime.now(UTC))
    except ValueError as error:
        raise invalid("since", str(error)) from None
    key = query.get("key", "")
    if key_name != "master":
        if key not in ("", key_name):
            raise ApiError(
                403,
                f"The key '{key_name}' shows its own use only; leave 'key' out.",
                reason="not_own_usage",
                kind="permission_error",
                param="key",
                code="permission_denied",
            )
        key = key_name
    if not key.isprintable():
        raise invalid("key", "must be the name of a key")
    return (f"--since={since}", f"--utc-offset={int(given)}", *([f"--key={key}"] if key else []))
