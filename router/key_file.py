"""Changes to the key file: one at a time, each whole or not at all, and nothing else in it is touched."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from router.errors import BadSettings

Fields = Mapping[str, Any]


class _Place(NamedTuple):
    """Where an entry is in the text."""

    name: str
    start: int
    end: int
    column: int


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Other changes of the file wait meanwhile. The lock is on its folder, because the file is replaced.

    Raises:
        OSError: there is no such folder.
    """
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def replace(path: Path, text: str) -> None:
    """Write the file, readable for its owner only, who stays the same. Whoever reads it sees all or nothing
    of the change.

    Raises:
        OSError: it could not be written, and is as it was.
    """
    path = path.resolve()  # a link stays one
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            with contextlib.suppress(FileNotFoundError):
                was = path.stat()
                if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, was.st_uid, was.st_gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def with_entry(text: str, name: str, fields: Fields) -> str:
    """The text of a key file with this entry in place of the one of that name, or at the end.

    Raises:
        BadSettings: the text is written in a way that only a person can edit.
    """
    places = _places(text)
    line = yaml.safe_dump(
        {name: dict(fields)}, default_flow_style=None, sort_keys=False, allow_unicode=True, width=10_000
    ).strip()
    found = next((place for place in places if place.name == name), None)
    if found:
        changed = text[: found.start] + line + text[found.end :]
    else:
        start = text if not text or text.endswith("\n") else f"{text}\n"
        changed = f"{start}{' ' * (places[0].column if places else 0)}{line}\n"
    return _checked(changed, read(text) | {name: dict(fields)})


def without_entry(text: str, name: str) -> str:
    """The text of a key file without the lines of this entry.

    Raises:
        BadSettings: as `with_entry` does.
    """
    changed = text
    for place in reversed(_places(text)):
        if place.name == name:
            start = changed.rfind("\n", 0, place.start) + 1
            changed = changed[:start] + changed[place.end :].partition("\n")[2]
    return _checked(changed, {other: entry for other, entry in read(text).items() if other != name})


def read(text: str) -> dict[str, Any]:
    """The entries by name, as they are written."""
    return {str(name): entry for name, entry in (yaml.safe_load(text) or {}).items()}


def _places(text: str) -> list[_Place]:
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return []
    if root.flow_style:
        raise _by_hand()
    return [
        _Place(
            str(yaml.safe_load(text[key.start_mark.index : key.end_mark.index])),
            key.start_mark.index,
            _end(value),
            key.start_mark.column,
        )
        for key, value in root.value
    ]


def _end(node: yaml.Node) -> int:
    """Where the text of a value ends. PyYAML counts what follows a block, too: comments and empty lines."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    return int(node.end_mark.index)


def _checked(text: str, wanted: Fields) -> str:
    try:
        if read(text) == wanted:
            return text
    except (yaml.YAMLError, ValueError, TypeError, AttributeError):
        pass
    raise _by_hand()


def _by_hand() -> BadSettings:
    return BadSettings("KEYS_FILE: its YAML is not one 'name: key' line per name; edit it by hand")
