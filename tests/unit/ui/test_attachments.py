import pytest

from ui.attachments import MAX_KILOBYTES, read


def test_text_files_become_attachments() -> None:
    ((attached,), refused) = read([("a.py", b"\xef\xbb\xbfprint('\xc3\xa4')")])
    assert (attached.name, attached.text, attached.encoding) == ("a.py", "print('ä')", "")
    assert not refused


@pytest.mark.parametrize(
    ("encoding", "text", "told"),
    [
        ("latin-1", "größe = 5  # Länge der Straße", "windows-1252"),
        ("latin-1", "# é", "windows-1252"),
        ("windows-1252", "“quoted” – naïve café", "windows-1252"),
        ("windows-1251", "Привет, мир! Это текст на русском языке.", "cp1251"),
        ("shift_jis", "これは日本語のテキストです。" * 3, "cp932"),
        ("utf-16", "plain words, ä", "UTF-16"),
        ("utf-32", "plain words, ä", "UTF-32"),
    ],
)
def test_any_text_is_read_and_its_encoding_told(encoding: str, text: str, told: str) -> None:
    ((attached,), refused) = read([("notes.txt", text.encode(encoding))])
    assert (attached.text, attached.encoding, refused) == (text, told, [])


@pytest.mark.parametrize("name", ["Dockerfile", "Makefile", ".gitignore", "main.dart", "App.svelte", "x"])
def test_the_name_of_a_file_does_not_matter(name: str) -> None:
    assert read([(name, b"text")])[0][0].name == name


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x" * (MAX_KILOBYTES * 1024 + 1), f"at most {MAX_KILOBYTES} KB"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is a picture"),
        (b"%PDF-1.7\n1 0 obj", "damaged PDF"),
        (b"a\0b", "not a text file"),
    ],
)
def test_what_cannot_be_attached_is_told_and_the_rest_is_taken(content: bytes, said: str) -> None:
    attached, (refused,) = read([("good.py", b"x = 1"), ("bad", content)])
    assert [each.name for each in attached] == ["good.py"]
    assert "bad" in refused and said in refused
