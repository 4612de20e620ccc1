"""Parses server-sent events as their bytes arrive (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One event: its `data` lines joined by newlines, and its type, empty unless the server names it."""

    data: str
    type: str = ""


class Parser:
    """Takes the bytes of a stream in pieces of any size; lines may end in LF, CRLF or CR."""

    def __init__(self) -> None:
        self._rest = b""
        self._skip_newline = False
        self._data: list[bytes] = []
        self._type = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in order; [] while an event is still incomplete."""
        if self._skip_newline and data[:1] == b"\n":
            data = data[1:]  # the second half of a CRLF whose CR ended the last piece
        self._skip_newline = data[-1:] == b"\r" if data else self._skip_newline
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        events = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                text = b"\n".join(self._data).decode("utf-8", "replace")
                events.append(Event(text, self._type.decode("utf-8", "replace")))
                self._data, self._type = [], b""
            else:
                self._type = b""
        return events

    def _take(self, line: bytes) -> None:
        name, _, value = line.removeprefix(b"\xef\xbb\xbf").partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value
