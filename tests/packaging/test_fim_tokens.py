"""Fill-in-the-middle prompts against the real tokenizer of the one family whose package ships it."""

import subprocess

from router.fim import read_families
from services.stack.environments import BY_NAME, ROOT

ENCODE = """
import sys
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
request = FIMRequest(prompt=sys.argv[1], suffix=sys.argv[2])
print("TEXT" + MistralTokenizer.v3(is_tekken=False).encode_fim(request).text)
"""


def test_codestral_is_asked_as_mistrals_own_tokenizer_asks_it() -> None:
    prefix, suffix = "def add(a, b):\n    ", "\n    return total"
    command = [str(BY_NAME["engine"].python), "-c", ENCODE, prefix, suffix]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    text = answer.stdout[answer.stdout.index("TEXT") + 4 :].rstrip("\n")
    # SentencePiece writes a space as ▁ and adds one in front of a text; vLLM adds the <s> itself.
    text = text.replace("<0x0A>", "\n").replace("▁", " ").replace("[PREFIX] ", "[PREFIX]").removeprefix("<s>")
    family = {family.name: family for family in read_families(ROOT / "config" / "fim.yaml")}["codestral"]
    assert text == family.render(prefix, suffix)
