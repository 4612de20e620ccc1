"""Files that people attach to a question: which are taken, and how large."""

from collections.abc import Sequence

from ui.conversation import Attachment

MAX_KILOBYTES = 256
MAX_FILES = 10
TYPES = (
    *("txt", "md", "rst", "log", "csv", "tsv", "json", "jsonl", "yaml", "yml", "toml", "ini", "cfg", "conf"),
    *(
        "env",
        "xml",
        "html",
        "css",
        "scss",
        "sql",
        "py",
        "pyi",
        "ipynb",
        "js",
        "mjs",
        "ts",
        "tsx",
        "jsx",
        "vue",
    ),
    *(
        "java",
        "kt",
        "scala",
        "go",
        "rs",
        "c",
        "h",
        "cc",
        "cpp",
        "hpp",
        "cs",
        "rb",
        "php",
        "swift",
        "sh",
        "bash",
    ),
    *("ps1", "bat", "lua", "r", "jl", "pl", "tf", "proto", "graphql", "diff", "patch"),
)


class Refused(ValueError):
    """A file cannot be attached; the message says why, for people."""


def read(files: Sequence[tuple[str, bytes]]) -> list[Attachment]:
    """The attachments from files' names and contents.

    Raises:
        Refused: too many, too large, or no text.
    """
    if len(files) > MAX_FILES:
        raise Refused(f"{len(files)} files are too many: at most {MAX_FILES} go with a question.")
    attachments = []
    for name, content in files:
        if len(content) > MAX_KILOBYTES * 1024:
            raise Refused(
                f"“{name}” has {len(content) // 1024} KB: at most {MAX_KILOBYTES} KB can be attached."
            )
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Refused(f"“{name}” is not a text file in UTF-8.") from None
        if "\0" in text:
            raise Refused(f"“{name}” is not a text file.")
        attachments.append(Attachment(name=name, text=text))
    return attachments
