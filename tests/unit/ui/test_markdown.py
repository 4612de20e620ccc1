import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ui.markdown import plain, presentable

JOINER = "\u2060"


@pytest.mark.parametrize(
    ("said", "drawn"),
    [
        (r"\(a^2\) and \[b\]", "$a^2$ and $$b$$"),
        ("it costs $5 or $6", r"it costs \$5 or \$6"),
        ("the area $a^2$ costs $5", r"the area $a^2$ costs \$5"),
        ("$$\nx = 1\n$$", "$$\nx = 1\n$$"),
        ("so\n\n$$x = 1$$", "so\n\n$$\nx = 1\n$$"),
        ("\\[ x = 1 \\].", "$$\n x = 1 .\n$$"),
        ("> - \\[x = 1\\]", "> - $$\n>   x = 1\n>   $$"),
        ("1. so\n   \\[\n   a\n\n   - b\n   \\]", "1. so\n   $$\n   a\n\n   - b\n   $$"),
        (r"see \[1\], \[citation needed\] and \(optional\)",) * 2,
        ("![x](http://evil/?q=secret)", r"\![x](http://evil/?q=secret)"),
        (
            "| ![x](http://evil) | ![x](http://evil) |\n|-|-|",
            "| \\![x](http://evil) | \\![x](http://evil) |\n|-|-|",
        ),
        ("[^1]: ![x](http://evil)", r"[^1]: \![x](http://evil)"),
        ("`` ` ![x](http://evil)", r"`` ` \![x](http://evil)"),
        (":red[alarm] a:b", r"\:red[alarm] a:b"),
        (r"\:red[alarm]", r"\:red[alarm]"),
        (":smile: :material/home: :+1:", f":{JOINER}smile: :{JOINER}material/home: :{JOINER}+1:"),
        ("`$5 ![x](y) :red[z]`", "`$5 ![x](y) :red[z]`"),
        ("costs $5, see `$x`", r"costs \$5, see `$x`"),
        ("| $5 | `a \\| $b` $6 |\n|-|-|", "| \\$5 | `a \\| $b` \\$6 |\n|-|-|"),
        ("```\n$5 \\( ![x](y)\n```\n$6", "```\n$5 \\( ![x](y)\n```\n\\$6"),
        ("    indented()", "[//]: #\n\n    indented()"),  # Streamlit would take the indentation away
        ("```python\nprint('$5')", "```python\nprint('$5')"),  # still being written
    ],
)
def test_presentable(said: str, drawn: str) -> None:
    assert presentable(said) == drawn


def code(text: str) -> list[str]:
    """All the code in `text`, as CommonMark has it."""
    return [
        token.content
        for block in MarkdownIt("commonmark").enable("table").parse(text)
        for token in [block, *(block.children or [])]
        if token.type in ("fence", "code_block", "code_inline")
    ]


PIECES = st.sampled_from(
    [
        "\n",
        "\n\n",
        "> ",
        "- ",
        "1. ",
        "    ",
        "  ",
        "```\n",
        "````py\n",
        "~~~\n",
        "`",
        "``",
        "| ",
        "|-|\n",
        "# ",
    ]
    + ["$x$", "$5", "${f%.log}", r"\[", r"\]", r"\((\d+)\)", "![i](u)", ":red[", ":smile:", "a ", "\\", "<b>"]
)


@settings(deadline=None, max_examples=500)  # the machine may be busy
@given(st.lists(PIECES, max_size=30).map("".join))
@example("- a\n\n  ```\n  \\[(\\w+)\\] \\((\\d+)\\)\n  ```")
@example("> ```\n> ${f%.log}\n> ```")
@example("so\n\n    ${f%.log} :red[x] ![y](z)")
@example("over `two\n${lines}` $5")
def test_code_stays_as_it_is_wherever_it_stands(said: str) -> None:
    assert code(presentable(said)) == code(said)


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet="![]()`x\n ~|->", max_size=40))
def test_no_answer_ever_holds_an_image(said: str) -> None:
    tokens = MarkdownIt().parse(presentable(said))
    assert not any(child.type == "image" for token in tokens for child in token.children or [])


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet="*_`[]()!<>#$:\\abc -1.+~", max_size=40))
def test_plain_text_is_drawn_as_it_is(text: str) -> None:
    pieces = MarkdownIt().parse("x" + plain(text))[1].children or []
    assert {piece.type for piece in pieces} <= {"text", "text_special"}
    drawn = "".join(piece.content for piece in pieces).replace(JOINER, "")
    assert drawn == "x" + " ".join(text.split())
