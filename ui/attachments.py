"""Files that people attach to a question: which are accepted, and how large."""

from collections.abc import Sequence

from ui.conversation import Attachment

MAX_KILOBYTES = 256
MAX_FILES = 10
TYPES = """
    txt md rst log csv tsv json jsonl yaml yml toml ini cfg conf env xml html css scss sql py pyi ipynb
    js mjs ts tsx jsx vue java kt scala go rs c h cc cpp hpp cs rb php swift sh bash ps1 bat lua r jl pl
    tf proto graphql diff patch
""".split()  # noqa: SIM905 - easier to read than a list


class AttachmentRefused(ValueError):
    """A file cannot be attached; the message tells people why."""


def read(files: Sequence[tuple[str, bytes]]) -> list[Attachment]:
    """The attachments from files' names and contents.

    Raises:
        AttachmentRefused: too many, too large, or no text.
    """
    if len(files) > MAX_FILES:
        raise AttachmentRefused(f"{len(files)} files are too many; attach at most {MAX_FILES} to a question.")
    attachments = []
    for name, content in files:
        if len(content) > MAX_KILOBYTES * 1024:
            raise AttachmentRefused(
                f"“{name}” is too large ({len(content) // 1024} KB); at most {MAX_KILOBYTES} KB are allowed."
            )
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise AttachmentRefused(f"“{name}” is not a text file in UTF-8.") from None
        if "\0" in text:
            raise AttachmentRefused(f"“{name}” is not a text file.")
        attachments.append(Attachment(name=name, text=text))
    return attachments
