"""Conversations from files: this app's exports, and those of ChatGPT, Claude and Open WebUI.

None of the other formats is documented by its maker. What is read here is what their exports of 2025 and 2026
hold; of a conversation with several branches, the one that was shown last.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ui.conversation import Attachment, Conversation, Message, NotAConversation, Options, parse

_UNPACKED_MEGABYTES = 200
_THOUGHTS = re.compile(r'<details type="reasoning".*?>\s*<summary>.*?</summary>(.*?)</details>\s*', re.DOTALL)


def read(content: bytes) -> tuple[list[Conversation], list[str]]:
    """The conversations in a JSON file, or in a ZIP archive of such files, and why others cannot be read.

    Raises:
        NotAConversation: nothing in the file can be read.
    """
    found: list[Conversation] = []
    problems: list[str] = []
    for text in _files(content):
        try:
            given: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise NotAConversation(
                "This file is not JSON. Import an export of this app, ChatGPT, Claude or Open WebUI."
            ) from None
        for each in _entries(given):
            try:
                conversation = _conversation(each)
            except NotAConversation as problem:
                problems.append(str(problem))
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
                problems.append(f"“{_title(each) or 'A conversation'}” is damaged.")
            else:
                if conversation.messages:
                    found.append(conversation)
    if not found:
        raise NotAConversation(problems[0] if problems else "This file contains no conversations.")
    return found, problems


def _files(content: bytes) -> Iterator[bytes]:
    if not content.startswith(b"PK"):
        yield content
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inside = [
                each
                for each in archive.infolist()
                if re.fullmatch(r"(.*/)?conversations[\w-]*\.json", each.filename)
            ]
            if sum(each.file_size for each in inside) > _UNPACKED_MEGABYTES * 1024 * 1024:
                raise NotAConversation(f"The archive holds more than {_UNPACKED_MEGABYTES} MB.")
            if not inside:
                raise NotAConversation("The archive holds no conversations.json.")
            for each in inside:
                yield archive.read(each)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
        raise NotAConversation("The archive is damaged or encrypted.") from None


def _entries(given: Any) -> list[Any]:
    if isinstance(given, dict) and isinstance(given.get("conversations"), list):
        entries: list[Any] = given["conversations"]
        return entries
    return given if isinstance(given, list) else [given]


def _conversation(entry: Any) -> Conversation:
    if not isinstance(entry, dict):
        raise NotAConversation("An entry is not a conversation.")
    if "mapping" in entry:
        made = _from_chatgpt(entry)
    elif "chat_messages" in entry:
        made = _from_claude(entry)
    elif isinstance(entry.get("chat"), dict):
        made = _from_open_webui(entry)
    elif "messages" in entry or "format" in entry:
        return parse(entry)
    else:
        raise NotAConversation("An entry is not a conversation.")
    made.title = " ".join(_title(entry).split())[:200]
    return made


def _title(entry: Any) -> str:
    if not isinstance(entry, dict):
        return ""
    return str(entry.get("title") or entry.get("name") or "")


def _from_chatgpt(entry: Mapping[str, Any]) -> Conversation:
    nodes = entry["mapping"]
    messages = []
    for node in _branch(nodes, entry.get("current_node"), "parent"):
        given = node.get("message")
        if not given or given.get("recipient", "all") != "all":
            continue  # the root, and calls of tools
        metadata, content = given.get("metadata") or {}, given.get("content") or {}
        if metadata.get("is_visually_hidden_from_conversation"):
            continue
        parts = [part for part in content.get("parts") or [] if isinstance(part, str)]
        thoughts = [str(each.get("content") or "") for each in content.get("thoughts") or []]
        messages.append(
            _message(
                given["author"]["role"],
                "\n\n".join(parts) or str(content.get("text") or ""),
                reasoning="\n\n".join(thoughts),
                model=str(metadata.get("model_slug") or ""),
            )
        )
    return _joined(messages, entry.get("update_time") or entry.get("create_time"))


def _from_claude(entry: Mapping[str, Any]) -> Conversation:
    messages = []
    for given in entry["chat_messages"]:
        blocks = given.get("content") or []
        texts = [str(each.get("text") or "") for each in blocks if each.get("type") == "text"]
        thoughts = [str(each.get("thinking") or "") for each in blocks if each.get("type") == "thinking"]
        files = [
            Attachment(name=str(each.get("file_name") or "file.txt"), text=str(each["extracted_content"]))
            for each in given.get("attachments") or []
            if each.get("extracted_content")
        ]
        messages.append(
            _message(
                "user" if given["sender"] == "human" else "assistant",
                "\n\n".join(text for text in texts if text) or str(given.get("text") or ""),
                reasoning="\n\n".join(thoughts),
                attachments=files,
            )
        )
    return _joined(messages, entry.get("updated_at"))


def _from_open_webui(entry: Mapping[str, Any]) -> Conversation:
    chat = entry["chat"]
    history = chat.get("history") or {}
    shown = _branch(history.get("messages") or {}, history.get("currentId"), "parentId")
    messages = []
    for given in shown or chat.get("messages") or []:
        text = str(given.get("content") or "")
        thoughts = [re.sub(r"^> ?", "", each, flags=re.M).strip() for each in _THOUGHTS.findall(text)]
        messages.append(
            _message(
                given["role"],
                _THOUGHTS.sub("", text),
                reasoning="\n\n".join(thoughts),
                model=str(given.get("model") or ""),
            )
        )
    made = _joined(messages, entry.get("updated_at"))
    made.pinned = bool(entry.get("pinned"))
    made.options = Options(system=str((chat.get("params") or {}).get("system") or ""))
    return made


def _branch(nodes: Mapping[str, Any], last: Any, parent: str) -> list[Any]:
    """The messages from the first to `last`; each names the one before it."""
    branch: list[Any] = []
    while last in nodes and len(branch) < len(nodes):
        branch.insert(0, nodes[last])
        last = nodes[last].get(parent)
    return branch


def _message(
    role: str, text: str, *, reasoning: str = "", model: str = "", attachments: Iterable[Attachment] = ()
) -> Message | None:
    if role not in ("user", "assistant") or not (text.strip() or reasoning or attachments):
        return None
    return Message.model_validate(
        {
            "role": role,
            "text": text.strip(),
            "reasoning": reasoning.strip(),
            "model": model,
            "attachments": list(attachments),
        }
    )


def _joined(messages: Iterable[Message | None], updated: Any) -> Conversation:
    """A conversation of these; an answer that came in several parts is one."""
    made = Conversation()
    for message in messages:
        if message is None:
            continue
        last = made.messages[-1] if made.messages else None
        if last and last.role == message.role == "assistant":
            last.text = "\n\n".join(part for part in (last.text, message.text) if part)
            last.reasoning = "\n\n".join(part for part in (last.reasoning, message.reasoning) if part)
            last.model = message.model or last.model
        elif last or message.role == "user":
            made.messages.append(message)
    if isinstance(updated, str):
        made.updated = datetime.fromisoformat(updated).astimezone(UTC)
    elif updated:
        made.updated = datetime.fromtimestamp(float(updated), UTC)
    return made
