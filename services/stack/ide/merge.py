"""Merges a configuration into a tool's own file, and keeps its other values, its order and its comments.

json-five (JSON with comments, as in VS Code and Zed), ruamel.yaml and tomlkit keep what is not a value.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import tomlkit
from json5 import loads as json5_loads
from json5.loader import ModelLoader
from json5.model import JSONArray, JSONObject
from ruamel.yaml import YAML

from services.stack.failure import Failure

# Two entries of a list are the same if one of these is equal in both.
IDENTITY = ("id", "model_id", "name")

_JSON_COMMENTS = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def merged(text: str, config: str, form: str, keep: Sequence[str] = ()) -> str:
    """`text`, the file's content, with `config` merged in; both in the format `form` (json, yaml, toml).

    Mappings are merged key by key, and lists of named entries by name. Everything else is replaced, except
    the settings named in `keep`, if the file has them.

    Raises:
        ValueError: `text` is not in that format, or has a list where the configuration has a mapping.
    """
    if not text.strip():
        return config
    if "\r\n" in text:
        # Merged with one kind of line end, and given back with the file's own.
        return merged(text.replace("\r\n", "\n"), config, form, keep).replace("\n", "\r\n")
    try:
        if form == "json":
            return _json(text, config)
        return _yaml(text, config, keep) if form == "yaml" else _toml(text, config)
    except ValueError:
        raise
    except Exception as error:  # each library raises its own errors for text that it cannot parse
        raise ValueError(" ".join(str(error).split())[:200]) from None


def write(
    path: Path, config: str, form: str, secret: bool, keep: Sequence[str] = ()
) -> Path | Literal[False] | None:
    """Merge `config` into the file at `path`, and keep a copy of its previous content.

    Args:
        path: the tool's file; if it is a link, its target is written.
        config: what to merge in.
        form: json, yaml or toml.
        secret: whether `config` contains the key, so that only the owner may read the file.
        keep: settings of the file that are not changed.

    Returns:
        The path of the copy, None if there was no file, False if the file has this configuration already.

    Raises:
        Failure: the file cannot be read, parsed or written; it is unchanged.
    """
    path = path.resolve()
    try:
        before = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
        after = merged(before, config, form, keep)
        if after == before:
            return False
        backup = None
        if before:
            backup = path.with_name(f"{path.name}.before-duoserve-{datetime.now():%Y%m%d-%H%M%S}")
            _place(backup, before, 0o600 if secret else path.stat().st_mode & 0o777)
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if before else 0o644
        _place(path, after, 0o600 if secret else mode)
        return backup
    except UnicodeDecodeError:
        raise Failure(f"{path} is not text; nothing was written.") from None
    except ValueError as error:
        raise Failure(
            f"{path} is not valid {form}; nothing was written. Fix the file first. ({error})"
        ) from None
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}.") from None


def _place(path: Path, text: str, mode: int) -> None:
    """Write the whole file or nothing."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(text.encode())
        os.chmod(name, mode)  # noqa: PTH101
        os.replace(name, path)  # noqa: PTH105
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _merge(into: Any, wanted: Any) -> None:
    """For documents of ruamel.yaml and tomlkit, which consist of dicts and lists."""
    if isinstance(wanted, Mapping):
        if not isinstance(into, MutableMapping):
            raise ValueError("there is a list where settings by name are expected")
        for key, value in wanted.items():
            if isinstance(into.get(key), MutableMapping | MutableSequence) and isinstance(value, dict | list):
                _merge(into[key], value)
            elif into.get(key) != value:
                into[key] = value
        return
    if not isinstance(into, MutableSequence):
        raise ValueError("there are settings by name where a list is expected")
    for entry in wanted:
        place = next((i for i, own in enumerate(into) if _same(own, entry)), None)
        if place is None:
            into.append(entry)
        elif isinstance(entry, Mapping):
            _merge(into[place], entry)


def _same(own: Any, entry: Any) -> bool:
    if not isinstance(own, Mapping) or not isinstance(entry, Mapping):
        return bool(own == entry)
    return any(name in entry and own.get(name) == entry[name] for name in IDENTITY)


def _yaml(text: str, config: str, keep: Sequence[str]) -> str:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    document, wanted = yaml.load(text), yaml.load(config)
    if document is None:  # nothing but comments
        return f"{text.rstrip()}\n\n{config}"
    for name in keep:
        if name in document:
            del wanted[name]
    before = json.dumps(document, default=str)
    _merge(document, wanted)
    if json.dumps(document, default=str) == before:
        return text
    out = StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _toml(text: str, config: str) -> str:
    document = tomlkit.parse(text)
    _merge(document, tomlkit.parse(config).unwrap())
    return tomlkit.dumps(document)


def _json(text: str, config: str) -> str:
    if not _JSON_COMMENTS.sub("", text).strip():
        return f"{text.rstrip()}\n\n{config}"
    edits: list[tuple[int, int, str]] = []
    _edit(text, json5_loads(text, loader=ModelLoader()).value, json.loads(config), 1, edits)
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _edit(text: str, node: Any, wanted: Any, depth: int, edits: list[tuple[int, int, str]]) -> None:
    """Collect the replacements (start, end, new text) that merge `wanted` into `node` of `text`."""
    added: list[str] = []
    if isinstance(wanted, dict):
        if not isinstance(node, JSONObject):
            raise ValueError("there is something else where settings by name are expected")
        own = {
            json5_loads(_source(text, key)): value for key, value in zip(node.keys, node.values, strict=True)
        }
        for key, value in wanted.items():
            if key not in own:
                added.append(f"{json.dumps(key)}: {_indented(value, depth)}")
            elif isinstance(value, dict | list):
                _edit(text, own[key], value, depth + 1, edits)
            elif json5_loads(_source(text, own[key])) != value:
                edits.append((*_span(own[key]), json.dumps(value)))
    else:
        if not isinstance(node, JSONArray):
            raise ValueError("there is something else where a list is expected")
        entries = [(value, json5_loads(_source(text, value))) for value in node.values]
        for entry in wanted:
            same = next((value for value, is_ in entries if _same(is_, entry)), None)
            if same is None:
                added.append(_indented(entry, depth))
            elif isinstance(entry, dict):
                _edit(text, same, entry, depth + 1, edits)
    if added:
        close = _span(node)[1] - 1
        # On new lines, after whatever is last, which may be a comment.
        place = len(text[:close].rstrip())
        new = ",".join(f"\n{'  ' * depth}{entry}" for entry in added) + "\n" + "  " * (depth - 1)
        if node.values and node.trailing_comma is None:
            last = _span(node.values[-1])[1]
            new = "," + text[last:place] + new
            place = last
        edits.append((place, close, new))


def _span(node: Any) -> tuple[int, int]:
    return node._tok.index, node._end_tok.end


def _source(text: str, node: Any) -> str:
    start, end = _span(node)
    return text[start:end]


def _indented(value: Any, depth: int) -> str:
    return json.dumps(value, indent=2).replace("\n", "\n" + "  " * depth)
