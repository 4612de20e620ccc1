import re

from ui.conversation import Attachment, Conversation, Message
from ui.share import page


def test_a_shared_page_needs_nothing_and_runs_nothing() -> None:
    conversation = Conversation(title="<b>Title</b>")
    conversation.ask(
        "<script>alert(1)</script>",
        [
            Attachment(name="<x>.py", text="print(1 < 2)"),
            Attachment(name="photo", text="", picture="data:image/jpeg;base64,AAAA"),
        ],
    )
    text = "**bold** <img src=x onerror=alert(1)>\n\n```python\na = 1\n```\n\n![i](http://evil.test/x.png)"
    conversation.answered(Message(role="assistant", text=text, reasoning="Hm.", model="coder"))
    shared = page(conversation)
    body = shared.partition("</style>")[2]
    assert "<title>&lt;b&gt;Title&lt;/b&gt;</title>" in shared
    assert "<strong>bold</strong>" in body and ">print</span>" in body and "answers by coder" in body
    assert "<script" not in shared and "<img src=x" not in body
    assert re.findall(r'(?:src|href)="([^"]*)"', body) == ["data:image/jpeg;base64,AAAA"]
