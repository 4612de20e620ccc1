"""Files that people attach to a question: which are accepted, and how large."""

import codecs
import re
import unicodedata
from collections.abc import Sequence

from charset_normalizer import from_bytes

from ui.conversation import Attachment

MAX_KILOBYTES = 256
MAX_FILES = 10
UPLOAD_MEGABYTES = 50  # what the browser may send at all; less than that is refused with the reason
_UTF_16_32 = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]|\A%PDF-")  # not in text, whatever its encoding


class AttachmentRefused(ValueError):
    """A file cannot be attached; the message tells people why."""


def read(files: Sequence[tuple[str, bytes]]) -> tuple[list[Attachment], list[str]]:
    """The attachments from files' names and contents, and why others of them cannot be taken."""
    attachments, refused = [], []
    for name, content in files:
        try:
            attachments.append(_read(name, content))
        except AttachmentRefused as problem:
            refused.append(str(problem))
    return attachments, refused


def _read(name: str, content: bytes) -> Attachment:
    if len(content) > MAX_KILOBYTES * 1024:
        raise AttachmentRefused(
            f"“{name}” is too large ({len(content) // 1024:,} KB); at most {MAX_KILOBYTES} KB are allowed."
        )
    for mark, encoding in _UTF_16_32.items():
        if content.startswith(mark):
            try:
                return Attachment(name=name, text=content.decode(encoding), encoding=encoding.upper())
            except UnicodeDecodeError:
                break
    if _BINARY.search(content):
        raise AttachmentRefused(f"“{name}” is not a text file.")
    try:
        return Attachment(name=name, text=content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        encoding = _legacy_encoding(content)
        return Attachment(name=name, text=content.decode(encoding), encoding=encoding)


def _legacy_encoding(content: bytes) -> str:
    """The encoding of a text that is not in Unicode: for Latin letters Windows-1252 or Latin-1."""
    best = from_bytes(content).best()
    letters = [letter for letter in str(best or "") if letter > "\x7f" and letter.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if best and latin * 2 < len(letters):
        return best.encoding
    try:
        content.decode("windows-1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "windows-1252"
