"""PDF files and pictures as attachments."""

import base64
import io

import pytest
from PIL import Image
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from ui.attachments import MAX_KILOBYTES, read
from ui.conversation import Conversation


def pdf(*pages: str, password: str = "") -> bytes:
    """A PDF file with these texts, one a page."""
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(600, 800)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        drawing = DecodedStreamObject()
        drawing.set_data(f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET".encode("latin-1"))
        page[NameObject("/Contents")] = writer._add_object(drawing)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def image(kind: str, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> bytes:
    written = io.BytesIO()
    Image.new(mode, size).save(written, kind)
    return written.getvalue()


def test_the_text_of_a_pdf_file_is_attached() -> None:
    ((attached,), refused) = read([("paper.pdf", pdf("First page", "Second page"))])
    assert (attached.text, attached.encoding, refused) == ("First page\n\nSecond page", "PDF", [])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pdf(""), "without text"),
        (pdf("secret", password="x"), "is encrypted"),
        (pdf("text")[:300], "damaged PDF"),
        (pdf("word " * 300 * MAX_KILOBYTES), "too much text"),
    ],
)
def test_a_pdf_file_without_usable_text_is_refused(content: bytes, why: str) -> None:
    attached, (refused,) = read([("paper.pdf", content)])
    assert not attached and refused.startswith("“paper.pdf” ") and why in refused


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "CMYK"), ("GIF", "P"), ("WEBP", "RGB"), ("BMP", "L")],
)
def test_pictures_go_to_models_that_take_them(kind: str, mode: str) -> None:
    ((attached,), refused) = read([("photo", image(kind, (4000, 100), mode))], "eyes", True)
    assert refused == [] and attached.picture.startswith("data:image/jpeg;base64,")
    sent = Image.open(io.BytesIO(base64.b64decode(attached.picture.partition(",")[2])))
    assert max(sent.size) < 2000
    conversation = Conversation()
    conversation.ask("What is this?", [attached])
    (message,) = conversation.prompt(pictures=True)
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": attached.picture}},
        {"type": "text", "text": "What is this?"},
    ]
    (message,) = conversation.prompt()  # another model has been chosen
    assert message["content"] == "(A picture, “photo”, was left out.)\n\nWhat is this?"


def test_a_model_that_reads_text_only_gets_no_picture() -> None:
    attached, (refused,) = read([("photo.png", image("PNG"))], "coder")
    assert not attached and refused == "“photo.png” is a picture, and coder reads text only."


def test_a_damaged_picture_is_refused() -> None:
    attached, (refused,) = read([("photo.png", image("PNG", (300, 300))[:-60])], "eyes", True)
    assert not attached and "damaged" in refused
