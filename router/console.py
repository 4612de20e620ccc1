"""Tables for the terminal."""

from collections.abc import Collection, Sequence


def printable(text: str) -> str:
    """`text` without what could move the cursor or change colors: names come from clients and files."""
    return "".join(character if character.isprintable() else "?" for character in text)


def lines(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """The rows as lines with aligned columns; those in `right` end at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
