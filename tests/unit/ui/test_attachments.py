import pytest

from ui.attachments import MAX_FILES, MAX_KILOBYTES, AttachmentRefused, read


def test_text_files_become_attachments() -> None:
    (attached,) = read([("a.py", b"\xef\xbb\xbfprint('\xc3\xa4')")])
    assert (attached.name, attached.text) == ("a.py", "print('ä')")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("a.py", b"x" * (MAX_KILOBYTES * 1024 + 1))], f"at most {MAX_KILOBYTES} KB"),
        ([("a.txt", b"\xff\xfe\x00")], "not a text file"),
        ([("a.txt", b"a\0b")], "not a text file"),
        ([("a.txt", b"a")] * (MAX_FILES + 1), f"at most {MAX_FILES}"),
    ],
)
def test_what_cannot_be_attached_is_refused_with_the_reason(
    files: list[tuple[str, bytes]], said: str
) -> None:
    with pytest.raises(AttachmentRefused) as refused:
        read(files)
    assert said in str(refused.value)
