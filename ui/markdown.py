"""Text of models and people, escaped for Streamlit's Markdown, which has more syntax than CommonMark.

A CommonMark parser decides what is code, so that code reaches the browser byte for byte wherever it stands:
in lists, in quotes, indented, or inline.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~^&=])")
JOINER = "\u2060"  # Unicode's word joiner: invisible
# Streamlit turns :smile:, :material/home: and :streamlit: into pictures even if the colon is escaped. A
# word joiner behind the colon prevents it.
_SHORTCODE = re.compile(r":(?=(?:[+-]1|[a-z0-9][\w+-]*|material/\w+):)")
_DIRECTIVE = re.compile(r":(?=[a-z][\w+/-]*[\[{])")
# Pandoc's rule for inline mathematics (https://pandoc.org/MANUAL.html#math): no space just inside the dollar
# signs, no digit after them. Anything else is a price.
_MATH = re.compile(r"\$\$(?P<block>[^`]+?)\$\$|\$(?=[^\s$])[^$\n`]*?(?<=[^\s\\$])\$(?![\d$])", re.DOTALL)
_TEX = re.compile(r"\\\[(?P<block>[^`$]+?)\\\]|\\\((?P<inline>[^`$]+?)\\\)", re.DOTALL)
# Brackets that were escaped in prose, like \[1\] or \(optional\), hold no mathematics.
_PROSE = re.compile(r"(?:[^\W_]|[\s,.;:!?'’/-])*[^\W\d_]{3}(?:[^\W_]|[\s,.;:!?'’/-])*|[\s\d,.;–-]+")
_AFTER_MATH = re.compile(r"([.,;]?)[ \t]*(?=\n|\Z)")


def plain(text: str) -> str:
    """`text` for a label, shown verbatim: nothing in it becomes formatting, a link, an image or an icon."""
    joined = _SHORTCODE.sub(f":{JOINER}", " ".join(text.split()))
    return _SPECIAL.sub(r"\\\1", joined)


def presentable(text: str) -> str:
    r"""A model's answer as Markdown for Streamlit.

    Code stays as it is. Elsewhere \( \) and \[ \] become the dollar signs that Streamlit reads as
    mathematics, other dollar signs stay as they are, Streamlit's directives (:red[...]) and shortcodes
    (:smile:, :material/home:) have no effect, and images are not fetched, because a fetched address can leak
    the conversation.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if text.lstrip("\r\n")[:1].isspace():
        # Streamlit removes common indentation; a definition of a link, which draws nothing, keeps it.
        lines[:0] = ["[//]: #", ""]
    env: dict[str, object] = {}
    blocks: list[Token] = []
    _PARSER.block.parse("\n".join(lines), _PARSER, env, blocks)
    parsed: set[int] = set()
    column = [0] * len(lines)  # where the next cell of a table may begin
    for block in blocks:
        if block.map is None:
            continue
        covered = range(block.map[0], min(block.map[1], len(lines)))
        if block.type in ("fence", "code_block"):
            parsed.update(covered)
        elif block.type == "math_block":
            parsed.update(covered)
            if block.markup == r"\[":
                lines[covered[0]] = lines[covered[0]].replace(r"\[", "$$")
                lines[covered[-1]] = re.sub(r"\\\][.,;]?", "$$", lines[covered[-1]])
        elif block.type == "inline":
            edited = _edited(block.content, env)
            for at, (old, new) in zip(covered, edited, strict=False):
                if _replace(lines, at, column, old, new):
                    parsed.add(at)
    return "\n".join(line if at in parsed else line.replace("![", r"\![") for at, line in enumerate(lines))


def _edited(content: str, env: dict[str, object]) -> list[tuple[str, str]]:
    """Each line of a block's inline `content`, as it is and as it is to be drawn."""
    edits: dict[int, tuple[int, str]] = {}
    _PARSER.inline.parse(content, _PARSER, env | {"edits": edits}, [])
    pairs, start = [], 0
    for line in content.split("\n"):
        end, at, drawn = start + len(line), start, ""
        for begin, (stop, replacement) in sorted(edits.items()):
            if start <= begin < end:
                drawn += content[at:begin] + replacement
                at = stop
        pairs.append((line, drawn + content[at:end]))
        start = end + 1
    return pairs


def _replace(lines: list[str], at: int, column: list[int], old: str, new: str) -> bool:
    """Put `new` in the place of `old`, which is what the parser made of a line, or of a part of it."""
    source, wanted, drawn = lines[at], old.strip(), new.strip()
    start = len(source.rstrip()) - len(wanted)
    if not source.rstrip().endswith(wanted) or start < column[at]:  # a heading, or the cell of a table
        start = source.find(wanted, column[at])
        if start < 0:
            wanted, drawn = wanted.replace("|", r"\|"), drawn.replace("|", r"\|")
            start = source.find(wanted, column[at])
        if start < 0:
            return False
    elif column[at] == 0 and "|" in source and 0 <= source.find(wanted) < start:
        start = source.find(wanted)  # the first of several cells that are alike
    before = source[:start]
    # Another line of the same block begins as this one does, without the marker of a list.
    margin = "".join(letter if letter in "> \t" else " " for letter in before)
    drawn = drawn.replace("\n", f"\n{margin}")
    lines[at] = before + drawn + source[start + len(wanted) :]
    column[at] = start + len(drawn)
    return True


def _note(state: StateInline, silent: bool, end: int, *edits: tuple[int, int, str]) -> bool:
    """Take the text up to `end` as it is, and note what has to be changed in it."""
    if not silent:
        noted = state.env["edits"]
        for start, stop, replacement in edits:
            noted[start] = stop, replacement
        state.pending += state.src[state.pos : end]
    state.pos = end
    return True


def _math(state: StateInline, silent: bool) -> bool:
    here = state.pos
    letter = state.src[here]
    if letter not in "\\$":
        return False
    found = (_TEX if letter == "\\" else _MATH).match(state.src, here, state.posMax)
    if not found:
        return letter == "$" and _note(state, silent, here + 1, (here, here + 1, r"\$"))
    end, block = found.end(), found["block"]
    if block is None:
        if letter == "$":
            return _note(state, silent, end)
        inside = found["inline"]
        if re.fullmatch(r"[^\d]+", inside) and _PROSE.fullmatch(inside):
            return False
        return _note(state, silent, end, (here, end, f"${inside.strip()}$"))
    after = _AFTER_MATH.match(state.src, end)
    if after is None or state.src[:here].rpartition("\n")[2].strip():
        if letter == "$":
            return _note(state, silent, end)
        if _PROSE.fullmatch(block):
            return False
        return _note(state, silent, end, (here, here + 2, "$$"), (end - 2, end, "$$"))
    # In the lines between, $$ alone on a line makes it a block.
    own_line = block.rpartition("\n")[2].strip() == "" and "\n" in block
    return _note(
        state,
        silent,
        after.end(),
        (here, here + 2, "$$" if block.partition("\n")[0].strip() == "" else "$$\n"),
        (end - 2, after.end(), "$$" if own_line else f"{after[1]}\n$$"),
    )


def _image(state: StateInline, silent: bool) -> bool:
    here = state.pos
    if not state.src.startswith("![", here):
        return False
    return _note(state, silent, here + 1, (here, here + 1, r"\!"))


def _colon(state: StateInline, silent: bool) -> bool:
    here = state.pos
    if state.src[here] != ":":
        return False
    shortcode, directive = _SHORTCODE.match(state.src, here), _DIRECTIVE.match(state.src, here)
    if not (shortcode or directive):
        return False
    drawn = ("\\:" if directive else ":") + (JOINER if shortcode else "")
    return _note(state, silent, here + 1, (here, here + 1, drawn))


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
    if not silent:
        token = state.push("math_block", "", 0)
        token.markup, token.map = opening, [start, at + 1]
        state.line = at + 1
    return True


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table").disable("image")
    parser.block.ruler.before(
        "fence", "math_block", _math_block, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    for name, rule in (("math", _math), ("no_image", _image), ("colon", _colon)):
        parser.inline.ruler.before("escape", name, rule)
    return parser


_PARSER = _parser()
