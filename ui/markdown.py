"""Text of models and people as HTML, and as labels for Streamlit.

A CommonMark parser decides what is code, so that code reaches the browser byte for byte wherever it stands:
in lists, in quotes, indented, or inline. HTML in the text is shown as text, and images are not fetched,
because an address that is fetched can leak the conversation.
"""

import contextlib
import functools
import html
import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element

import latex2mathml.converter
import pygments
import pygments.lexers
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments.formatters import HtmlFormatter
from pygments.util import ClassNotFound

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~^&=])")
JOINER = "\u2060"  # Unicode's word joiner: invisible
# In labels, Streamlit turns :smile:, :material/home: and :streamlit: into pictures even if the colon is
# escaped. A word joiner behind the colon prevents it.
_SHORTCODE = re.compile(r":(?=(?:[+-]1|[a-z0-9][\w+-]*|material/\w+):)")
# Pandoc's rule for inline mathematics (https://pandoc.org/MANUAL.html#math): no space just inside the dollar
# signs, no digit after them. Anything else is a price.
_MATH = re.compile(
    r"\$\$(?P<display>[^`]+?)\$\$|\$(?P<inline>(?=[^\s$])[^$\n`]*?(?<=[^\s\\$]))\$(?![\d$])", re.DOTALL
)
_TEX = re.compile(r"\\\[(?P<display>[^`$]+?)\\\]|\\\((?P<inline>[^`$]+?)\\\)", re.DOTALL)
# Brackets that were escaped in prose, like \[1\] or \(optional\), hold no mathematics.
_PROSE = re.compile(r"(?:[^\W_]|[\s,.;:!?'’/-])*[^\W\d_]{3}(?:[^\W_]|[\s,.;:!?'’/-])*|[\s\d,.;–-]+")
_MATHML = re.compile(
    r"math|m(?:row|i|n|o|text|space|frac|sqrt|root|sub|sup|subsup|under|over|underover|table|tr|td"
    r"|style|padded|phantom|enclose|multiscripts|prescripts)"
)
_ATTRIBUTE = re.compile(r"(?!href|style|on|src)[a-z]+=[\w#%. -]*")
_TAG = re.compile(r"</?span[^>]*>")
_TEXT_BLOCKS = {
    f"{name}_open"
    for name in ("paragraph", "heading", "blockquote", "bullet_list", "ordered_list", "list_item", "th", "td")
}


def plain(text: str) -> str:
    """`text` for a Streamlit label, shown verbatim: nothing in it becomes formatting, a link or an icon."""
    joined = _SHORTCODE.sub(f":{JOINER}", " ".join(text.split()))
    return _SPECIAL.sub(r"\\\1", joined)


@functools.lru_cache(maxsize=1024)
def to_html(text: str) -> str:
    """Markdown as HTML that is safe to insert into a page."""
    return "".join(part for part, _ in blocks(text))


def blocks(text: str) -> list[tuple[str, int]]:
    """The top-level blocks of a Markdown text: the HTML of each, and the line on which it begins."""
    env: EnvType = {}
    tokens = _PARSER.parse(text, env)
    found: list[tuple[str, int]] = []
    start = depth = 0
    for at, token in enumerate(tokens):
        depth += token.nesting
        if depth == 0:
            part = tokens[start : at + 1]
            line = part[0].map[0] if part[0].map else 0
            found.append((_PARSER.renderer.render(part, _PARSER.options, env), line))
            start = at + 1
    return found


class GrowingHtml:
    """A Markdown text that grows, as HTML: blocks that are complete are not parsed again."""

    def __init__(self) -> None:
        self._done: list[str] = []  # the HTML of complete blocks
        self._offset = 0  # where the text begins that is still open

    def update(self, text: str) -> tuple[int, list[str]]:
        """The HTML of `text`: how many of the blocks told before stay, and the blocks after those."""
        kept = len(self._done)
        tail = text[self._offset :]
        found = blocks(tail)
        # A block is complete when another has begun behind it. One more stays open, because a list or a
        # quotation may turn out to go on behind an empty line.
        if len(found) > 2:
            complete = found[:-2]
            line = found[-2][1]
            at = 0
            for _ in range(line):
                at = tail.index("\n", at) + 1
            self._offset += at
            self._done += [part for part, _ in complete]
        return kept, [part for part, _ in found]


def code_html(text: str, language: str = "") -> str:
    """A block of code with its language and buttons, for which transcript.js cares."""
    body = html.escape(text)
    with contextlib.suppress(ClassNotFound):
        lexer = pygments.lexers.get_lexer_by_name(language, stripnl=False, ensurenl=False)
        coloured = pygments.highlight(text, lexer, _FORMATTER).removesuffix("\n")
        if html.unescape(_TAG.sub("", coloured)) == text:  # colours may never change code
            body = coloured
    name = html.escape(language or "text")
    return (
        f'<div class="code"><div class="code-bar"><span>{name}</span>'
        '<button type="button" data-do="wrap" aria-pressed="false">Wrap</button>'
        '<button type="button" data-do="copy-code">Copy</button></div>'
        f'<pre tabindex="0"><code>{body}</code></pre></div>\n'
    )


def _math_html(tex: str, display: str) -> str:
    try:
        return _safe(latex2mathml.converter.convert_to_element(tex.strip(), display=display))
    except Exception:  # it raises whatever its parser meets; what is no mathematics is shown as it is
        return f"<code>{html.escape(tex)}</code>"


def _safe(element: Element) -> str:
    r"""MathML of `element`: the library neither escapes \text{<b>} nor leaves out \href{javascript:...}."""
    if not _MATHML.fullmatch(element.tag):
        raise ValueError(element.tag)
    attributes = "".join(
        f' {name}="{value}"' for name, value in element.items() if _ATTRIBUTE.fullmatch(f"{name}={value}")
    )
    inside = _escaped(element.text) + "".join(_safe(each) + _escaped(each.tail) for each in element)
    return f"<{element.tag}{attributes}>{inside}</{element.tag}>"


def _escaped(text: str | None) -> str:
    return html.escape(html.unescape(text or ""))  # the library's symbols are character references


class _Renderer(RendererHTML):
    """Fences with a header, mathematics as MathML, tables that scroll by themselves."""

    def fence(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        words = tokens[at].info.split()
        return code_html(tokens[at].content.removesuffix("\n"), words[0] if words else "")

    def code_block(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        return code_html(tokens[at].content.removesuffix("\n"))

    def image(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        """Not fetched: shown as it was written."""
        source = tokens[at].attrGet("src") or ""
        return html.escape(f"![{tokens[at].content}]({source})")

    def math_inline(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        return _math_html(tokens[at].content, "inline")

    def math_display(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        return f'<span class="math" tabindex="0">{_math_html(tokens[at].content, "block")}</span>'

    def table_open(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        return '<div class="table" tabindex="0"><table>'

    def table_close(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        return "</table></div>"


def _math(state: StateInline, silent: bool) -> bool:
    letter = state.src[state.pos]
    if letter not in "\\$":
        return False
    found = (_TEX if letter == "\\" else _MATH).match(state.src, state.pos, state.posMax)
    if not found:
        return False
    display, inside = found["display"], found["inline"] or ""
    if letter == "\\" and (
        _PROSE.fullmatch(display) if display else not re.search(r"\d", inside) and _PROSE.fullmatch(inside)
    ):
        return False
    if not silent:
        state.push("math_display" if display else "math_inline", "", 0).content = display or inside
    state.pos = found.end()
    return True


def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    r"""Mathematics between lines that hold nothing but $$, or \[ and \]: nothing in it is Markdown."""
    if state.is_code_block(start):
        return False

    def line(at: int) -> str:
        return state.src[state.bMarks[at] + state.tShift[at] : state.eMarks[at]].strip()

    opening = line(start)
    if opening not in ("$$", r"\["):
        return False
    closing = r"\$\$" if opening == "$$" else r"\\\][.,;]?"
    for at in range(start + 1, end):
        if state.sCount[at] < state.blkIndent and line(at):
            return False
        if re.fullmatch(closing, line(at)):
            break
    else:
        return False
    content = "\n".join(line(each) for each in range(start + 1, at))
    if not content.strip():
        return False
    if not silent:
        token = state.push("math_display", "", 0)
        token.content = content
        token.map = [start, at + 1]
        state.line = at + 1
    return True


def _directions(state: StateCore) -> None:
    """Every block runs in the direction of its first letters, so that Arabic and Hebrew read right."""
    for token in state.tokens:
        if token.type in _TEXT_BLOCKS:
            token.attrSet("dir", "auto")
        for child in token.children or []:
            if child.type == "link_open":
                child.attrSet("target", "_blank")
                child.attrSet("rel", "noopener noreferrer")


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer)
    parser.enable(["table", "strikethrough"])
    parser.block.ruler.before(
        "fence", "math_block", _math_block, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    parser.inline.ruler.before("escape", "math", _math)
    parser.core.ruler.push("directions", _directions)
    return parser


_FORMATTER = HtmlFormatter(nowrap=True)
_PARSER = _parser()
