"""Files that people attach to a question: which are accepted, and how large."""

import codecs
import re
import unicodedata
from collections.abc import Sequence

from charset_normalizer import from_bytes

from ui.conversation import Attachment
from ui.documents import Unusable, pdf_text, picture

MAX_KILOBYTES = 256
MAX_FILES = 10
UPLOAD_MEGABYTES = 50  # what the browser may send at all; less than that is refused with the reason
_UTF_16_32 = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# How GIF, JPEG, PNG, TIFF, WebP and BMP files begin.
_PICTURES = (b"GIF8", b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"RIFF", b"BM")
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")  # not in text, whatever its encoding


class AttachmentRefused(ValueError):
    """A file cannot be attached; the message tells people why."""


def read(
    files: Sequence[tuple[str, bytes]], model: str = "", pictures: bool = False
) -> tuple[list[Attachment], list[str]]:
    """The attachments from files' names and contents, and why others of them cannot be taken.

    `pictures` says whether `model` takes them.
    """
    attachments, refused = [], []
    for name, content in files:
        try:
            attachments.append(_document(name, content, model, pictures) or _read(name, content))
        except AttachmentRefused as problem:
            refused.append(str(problem))
        except Unusable as problem:
            refused.append(f"“{name}” {problem}.")
    return attachments, refused


def _document(name: str, content: bytes, model: str, pictures: bool) -> Attachment | None:
    """A PDF file or a picture as an attachment; None if it is neither."""
    if content.startswith(b"%PDF-"):
        return Attachment(name=name, text=pdf_text(content, MAX_KILOBYTES * 1024), encoding="PDF")
    if not content.startswith(_PICTURES):
        return None
    if not pictures:
        raise AttachmentRefused(f"“{name}” is a picture, and {model or 'the model'} reads text only.")
    found = picture(content)
    return Attachment(name=name, text="", picture=found) if found else None


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
