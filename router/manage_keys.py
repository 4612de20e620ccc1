"""`./run keys`: adds, lists, revokes and rotates the keys of the key file, while the router runs."""

import argparse
import re
import secrets
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from router import key_file
from router.console import lines, printable
from router.errors import BadSettings
from router.keys import NamedKey, digest, read_keys
from router.settings import ROOT, Settings, read_settings

_NAME = re.compile(r"[A-Za-z0-9][\w.@+-]{0,63}", re.ASCII)
_LONGEST_DAYS = 36_500


class _Refused(Exception):
    """What was asked for cannot be done. The text is one line that says why, and the remedy."""


def main() -> int:
    """Run one command; returns the exit status: 0, or 1 when nothing was changed."""
    options = _parser().parse_args()
    try:
        settings = read_settings()
        if not settings.keys_file:
            raise _Refused(
                "KEYS_FILE is empty; set KEYS_FILE=config/keys.yaml in .env, add a key, and restart once"
            )
        options.command(settings, options)
        sys.stdout.flush()
    except (_Refused, BadSettings) as error:
        print(f"duoserve: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"duoserve: KEYS_FILE: {settings.keys_file} was not changed ({error.strerror}); fix that and run "
            "the command again",
            file=sys.stderr,
        )
        return 1
    return 0


def _add(settings: Settings, options: argparse.Namespace) -> None:
    name = options.name
    if not _NAME.fullmatch(name) or name == "master":
        raise _Refused(
            f"'{printable(name)}' cannot be a name; use up to 64 letters, digits and .@+_-, not 'master'"
        )

    def change(text: str) -> str:
        if name in key_file.read(text):
            raise _Refused(f"'{name}' has a key already; rotate it, or choose another name")
        return key_file.with_entry(text, name, _entry({}, options, key))

    key = _new_key()
    _change(settings, change, missing_is_empty=True)
    _show(name, key)


def _rotate(settings: Settings, options: argparse.Namespace) -> None:
    name = options.name

    def change(text: str) -> str:
        old = read_keys(settings, text)[_known(text, name)]
        if old.expired and options.expires is None:
            raise _Refused(
                f"'{name}' expired after {old.expires}; say until when the new key is valid (--expires)"
            )
        written = key_file.read(text)[name]
        return key_file.with_entry(
            text, name, _entry(written if isinstance(written, dict) else {}, options, key)
        )

    key = _new_key()
    _change(settings, change)
    _show(name, key)


def _revoke(settings: Settings, options: argparse.Namespace) -> None:
    _change(settings, lambda text: key_file.without_entry(text, _known(text, options.name)))
    print(f"'{options.name}' is revoked: its key gets a 401 within a second.", file=sys.stderr)


def _list(settings: Settings, _: argparse.Namespace) -> None:
    names = key_file.read(_text(settings))
    keys = {name: key for name, key in read_keys(settings).items() if name in names}
    heading = ("name", "requests/min", "tokens/min", "valid until", "stored")
    rows = [
        (
            printable(name),
            str(key.requests_per_minute or "-"),
            str(key.tokens_per_minute or "-"),
            _validity(key),
            "plain" if key.key else "hashed",
        )
        for name, key in keys.items()
    ]
    print("\n".join(lines([heading, *rows], right={1, 2})))
    if any(key.key for key in keys.values()):
        print(
            f"Whoever reads {settings.keys_file} can use a plain key: `./run keys rotate NAME` replaces it "
            "by one of which only a hash is stored.",
            file=sys.stderr,
        )


def _validity(key: NamedKey) -> str:
    return f"{key.expires or '-'}{' (expired)' if key.expired else ''}"


def _change(settings: Settings, change: Callable[[str], str], missing_is_empty: bool = False) -> None:
    """Write what `change` makes of the file's text, if the router can use it."""
    path = ROOT / settings.keys_file
    with key_file.locked(path):
        text = _text(settings, missing_is_empty)
        read_keys(settings, text)  # so that a file that is wrong already is named as such
        changed = change(text)
        read_keys(settings, changed)
        key_file.replace(path, changed)


def _text(settings: Settings, missing_is_empty: bool = False) -> str:
    path = Path(settings.keys_file)
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except FileNotFoundError:
        if missing_is_empty:
            return ""
        raise _Refused(f"KEYS_FILE: there is no {path} yet; `./run keys add NAME` makes it") from None
    except UnicodeDecodeError:
        raise _Refused(f"KEYS_FILE: {path} is not in UTF-8; save it in UTF-8") from None


def _known(text: str, name: str) -> str:
    if name not in key_file.read(text):
        raise _Refused(f"there is no key '{printable(name)}'; `./run keys list` shows all")
    return name


def _entry(written: dict[str, Any], options: argparse.Namespace, key: str) -> dict[str, Any]:
    """What the file gets: the key's hash, what was `written` for the old one, and what the options set."""
    fields = {"sha256": digest(key).hex()} | {
        field: value for field, value in written.items() if field not in ("key", "sha256")
    }
    given = {"requests_per_minute": options.rpm, "tokens_per_minute": options.tpm, "expires": options.expires}
    fields |= {field: value for field, value in given.items() if value is not None}
    if fields.get("expires") == date.max:
        del fields["expires"]
    return fields


def _new_key() -> str:
    return f"sk-{secrets.token_hex(32)}"


def _show(name: str, key: str) -> None:
    try:
        print(key, flush=True)
    except OSError as error:
        raise _Refused(
            f"'{name}' has a new key, which could not be shown ({error.strerror}); run `./run keys rotate "
            f"{name}`"
        ) from None
    print(
        f"This is the key of '{name}', valid within a second. It is not stored and cannot be shown again.",
        file=sys.stderr,
    )


def _expires(text: str) -> date:
    """The last day, from a date, a number of days such as `30d`, or `never` (which is `date.max`)."""
    today = datetime.now(UTC).date()
    if text == "never":
        return date.max
    if (days := re.fullmatch(r"(\d{1,5})d", text)) and int(days[1]) <= _LONGEST_DAYS:
        return today + timedelta(days=int(days[1]))
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a day; give its date (2027-01-31), a number of days (30d) or never"
        ) from None
    if day < today:
        raise argparse.ArgumentTypeError(f"{text} is over; give a day to come, or revoke the key")
    return day


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; give one, or 0 for no limit")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run keys",
        description="The keys of people and tools, in KEYS_FILE. The router applies changes within a second.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb, command, text in (
        ("add", _add, "make a key, and show it once"),
        ("rotate", _rotate, "replace a key by a new one with the same limits, and show that once"),
        ("revoke", _revoke, "remove a key"),
        ("list", _list, "show names, limits and expiry; never a key"),
    ):
        each = verbs.add_parser(verb, help=text, description=text)
        each.set_defaults(command=command)
        if verb != "list":
            each.add_argument("name", metavar="NAME")
        if verb in ("add", "rotate"):
            each.add_argument("--rpm", type=_limit, metavar="N", help="requests per minute; 0: no limit")
            each.add_argument("--tpm", type=_limit, metavar="N", help="tokens per minute; 0: no limit")
            each.add_argument(
                "--expires", type=_expires, metavar="DAY", help="last day in UTC: a date, 30d, or never"
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
