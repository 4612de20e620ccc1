"""A conversation as one HTML file, which needs nothing else and looks like the page it comes from."""

import html

from ui.components import FRONTEND
from ui.conversation import Conversation, Message
from ui.markdown import code_html, to_html

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="content-security-policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
{style}
:root {{ color-scheme: light dark; }}
body {{
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.6 system-ui, sans-serif;
  color: light-dark(#1d2628, #e6edef); background: light-dark(#ffffff, #0f1416);
}}
.code-bar button {{ display: none; }}
.about {{ font-size: 0.85rem; color: light-dark(#4d5a60, #b4c0c5); }}
</style>
<h1>{title}</h1>
<p class="about">{about}</p>
<main class="transcript">
{messages}
</main>
</html>
"""


def page(conversation: Conversation) -> str:
    """The conversation as it is shown, without its other versions. No scripts, nothing to load."""
    models = dict.fromkeys(
        message.model for turn in conversation.messages for message in turn.both if message.model
    )
    about = f"{conversation.updated:%Y-%m-%d}, answers by {', '.join(models) or 'no model'}"
    return _PAGE.format(
        title=html.escape(conversation.name),
        style=(FRONTEND / "style.css").read_text(),
        about=html.escape(about),
        messages="\n".join(_message(each) for turn in conversation.messages for each in turn.both),
    )


def _message(message: Message) -> str:
    parts = []
    if message.reasoning:
        parts.append(
            f'<details class="reasoning"><summary>Reasoning</summary>{to_html(message.reasoning)}</details>'
        )
    if message.role == "assistant" or "```" in message.text:
        parts.append(f'<div class="markdown" dir="auto">{to_html(message.text)}</div>')
    else:
        parts.append(f'<div class="verbatim" dir="auto">{html.escape(message.text)}</div>')
    for each in message.attachments:
        name = html.escape(each.name)
        if each.picture:
            parts.append(f'<img class="picture" src="{html.escape(each.picture)}" alt="{name}">')
        else:
            language = each.name.rpartition(".")[2] if "." in each.name else ""
            parts.append(f"<details><summary>{name}</summary>{code_html(each.text, language)}</details>")
    if message.failure:
        parts.append(f'<p class="failure">{html.escape(message.failure)}</p>')
    return f'<article class="message {message.role}"><div class="body">{"".join(parts)}</div></article>'
