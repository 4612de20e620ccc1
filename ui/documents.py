"""What can be attached beside text: PDF files as their text, and pictures for models that take them."""

import base64
import io

from PIL import Image, ImageOps, UnidentifiedImageError
from pypdf import PdfReader
from pypdf.errors import PyPdfError

_SIDE = 1568  # pixels of a picture's longer side; models see no more than about that
_QUALITY = 85


class Unusable(ValueError):
    """The file cannot be used; the message says why, and begins in the middle of a sentence."""


def pdf_text(content: bytes, most: int) -> str:
    """The text of a PDF file.

    Raises:
        Unusable: it is damaged, encrypted, without text, or has more than `most` bytes of text.
    """
    pages: list[str] = []
    size = 0
    try:
        for page in PdfReader(io.BytesIO(content)).pages:
            pages.append(page.extract_text().strip())
            size += len(pages[-1].encode())
            if size > most:
                raise Unusable(f"has too much text; at most {most // 1024} KB are allowed")
    except (PyPdfError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        encrypted = "decrypt" in str(error) or "encrypt" in str(error)
        raise Unusable("is encrypted" if encrypted else "is a damaged PDF file") from None
    text = "\n\n".join(page for page in pages if page)
    if not text:
        raise Unusable("is a PDF file without text, perhaps a scan")
    return text.encode(errors="replace").decode()


def picture(content: bytes) -> str | None:
    """A picture as a data URL, made smaller if it is large; None if the file is no picture.

    Raises:
        Unusable: it is damaged or too large.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            shown = ImageOps.exif_transpose(opened)
            shown.thumbnail((_SIDE, _SIDE))
            written = io.BytesIO()
            if shown.mode in ("RGBA", "LA", "P", "PA"):
                shown = shown.convert("RGBA")
                white = Image.new("RGBA", shown.size, "white")
                shown = Image.alpha_composite(white, shown)
            shown.convert("RGB").save(written, "JPEG", quality=_QUALITY)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError:
        raise Unusable("is a picture with too many pixels") from None
    except (OSError, SyntaxError, ValueError):
        raise Unusable("is a damaged picture") from None
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
