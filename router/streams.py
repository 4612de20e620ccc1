"""What an event of a stream is: an announcement, or the first part of the answer."""

import re

from router.paths import CHAT, COMPLETIONS, MESSAGES, RESPONSES

# Only says that an answer will come; vLLM, LiteLLM and providers send these before the prompt has been read.
ANNOUNCEMENTS = re.compile(
    rb"(?:event: (?:message_start|ping|response\.(?:created|queued|in_progress))\ndata: .*\n\n)+"
)
# Text, reasoning, or a tool call. Inside a string the quotes would be escaped, so no text looks like it.
_CONTENT = {
    CHAT: rb'"(?:content|reasoning(?:_content)?|refusal)": ?"[^"]|"(?:tool_calls|function_call)": ?\[?\{',
    COMPLETIONS: rb'"text": ?"[^"]',
    MESSAGES: rb'"(?:text|thinking|partial_json)": ?"[^"]|"type": ?"tool_use"',
    RESPONSES: rb"^event: response\.[\w.]+\.delta$",
}
_PATTERNS = {path: re.compile(pattern, re.MULTILINE) for path, pattern in _CONTENT.items()}
_LONGEST_MATCH = 64  # bytes


class Content:
    """Finds where the answer begins in a stream of the API at `path`."""

    def __init__(self, path: str) -> None:
        self._pattern = _PATTERNS.get(path)
        self._end = b""

    def begins_in(self, part: bytes) -> bool:
        """Whether `part`, or what came just before it together with it, has the first of the content."""
        seen = self._end + part
        self._end = seen[-_LONGEST_MATCH:]
        return self._pattern is None or self._pattern.search(seen) is not None
