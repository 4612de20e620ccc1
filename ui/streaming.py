"""A growing answer on its way to the browser, as server-sent events, and the way to stop it.

The page's script has nothing to do meanwhile, so that a click never has to interrupt it. `transcript.js`
draws the events. Whoever knows an answer's id may follow and stop it: nobody can guess one.
"""

import json
import time
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ui.answers import Answer
from ui.backend import Backend, shared
from ui.markdown import GrowingHtml

_SILENT = 5  # seconds without output after which a growing answer says so
_KEPT_EVERY = 2.0  # seconds after which the browser keeps what has come


async def _follow(request: Request) -> Response:
    answer = shared().find(request.path_params["answer"])
    if answer is None:
        return Response(status_code=204)  # after which the browser does not try again
    return StreamingResponse(
        _events(answer, shared()), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def _stop(request: Request) -> Response:
    if answer := shared().find(request.path_params["answer"]):
        shared().stop(answer)
    return Response(status_code=204)


async def _events(answer: Answer, backend: Backend) -> AsyncIterator[str]:
    parts = {"text": GrowingHtml(), "reasoning": GrowingHtml()}
    shown = {"text": "", "reasoning": ""}
    noted = ""
    due = time.monotonic() + _KEPT_EVERY
    async for _ in answer.updates():
        ended = answer.ended
        event: dict[str, object] = {}
        for name, html in parts.items():
            if (now := getattr(answer.message, name)) != shown[name]:
                shown[name] = now
                event[name] = html.update(now)
        if (note := progress(answer, backend)) != noted:
            event["note"] = noted = note
        if shown["text"] and time.monotonic() > due:
            due = time.monotonic() + _KEPT_EVERY
            event["keep"] = answer.message.model_dump(mode="json")
        if ended:
            event["ended"] = True
        if event:
            yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


def progress(answer: Answer, backend: Backend) -> str:
    """What to tell while no output arrives; empty while it does, and in the first moment."""
    seconds, model = int(answer.waited), answer.request.model
    if answer.phase == "loading":
        return f"{model} is loading. Your question is waiting ({seconds} s)."
    if answer.phase == "sent":
        queue = backend.waiting(model)
        if seconds >= 2 and queue:
            return f"In queue: {queue} waiting ({seconds} s)"
        return f"{model} is reading … {seconds} s" if seconds else ""
    silent = int(answer.silent)
    return f"No output for {silent} s." if answer.phase == "answering" and silent >= _SILENT else ""


routes = [
    Route("/answers/{answer}", _follow),
    Route("/answers/{answer}/stop", _stop, methods=["POST"]),
]
