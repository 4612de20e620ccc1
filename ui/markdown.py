"""Text of models and people, escaped for Streamlit's Markdown, which has more syntax than CommonMark."""

import re

_CODE = re.compile(
    r"(^(?P<fence>`{3,}|~{3,}).*?(?:^(?P=fence)[`~]*\s*$|\Z)|`[^`\n]+`)", re.MULTILINE | re.DOTALL
)
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~^&=])")
# Pandoc's rule for inline mathematics (https://pandoc.org/MANUAL.html#math): no space just inside the dollar
# signs, no digit after them. Anything else is a price.
_MATH = re.compile(r"(\$\$.+?\$\$|(?<![\\$])\$(?=[^\s$])[^$\n]*?(?<=[^\s\\$])\$(?![\d$]))", re.DOTALL)
_DIRECTIVE = re.compile(r":(?=[a-z][\w+/-]*[\[:])")


def plain(text: str) -> str:
    """`text` for a label, shown verbatim: nothing in it becomes formatting, a link, an image or an icon."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def presentable(text: str) -> str:
    r"""A model's answer as Markdown for Streamlit.

    Outside code, \( \) and \[ \] become the dollar signs that Streamlit reads as mathematics, other dollar
    signs stay as they are, Streamlit's directives (:red[...], :icon:) have no effect, and images are not
    fetched, because a fetched address can leak the conversation.
    """
    parts, at = [], 0
    for code in _CODE.finditer(text):
        parts += [_prose(text[at : code.start()]), code.group()]
        at = code.end()
    return "".join([*parts, _prose(text[at:])])


def _prose(text: str) -> str:
    text = text.replace(r"\[", "$$").replace(r"\]", "$$").replace(r"\(", "$").replace(r"\)", "$")
    pieces = _MATH.split(text)
    for at in range(0, len(pieces), 2):
        piece = re.sub(r"(?<!\\)\$", r"\\$", pieces[at])
        pieces[at] = _DIRECTIVE.sub(r"\\:", piece.replace("![", r"\!["))
    return "".join(pieces)
