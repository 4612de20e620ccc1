"""One module for each generation route of vLLM, and one for Gemini's, which providers have."""

from mock_engine.dialects.base import Dialect
from mock_engine.dialects.chat import Chat
from mock_engine.dialects.completions import Completions
from mock_engine.dialects.gemini import Gemini
from mock_engine.dialects.messages import Messages
from mock_engine.dialects.responses import Responses

DIALECTS: dict[str, type[Dialect]] = {
    "/v1/chat/completions": Chat,
    "/v1/completions": Completions,
    "/v1/messages": Messages,
    "/v1/responses": Responses,
    "/v1beta/models": Gemini,
}
