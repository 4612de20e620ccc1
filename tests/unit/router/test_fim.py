import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import ApiError
from router.exchange import Exchange
from router.fim import family_of, read_families
from router.models import Mode, Model
from router.settings import ROOT
from router.steps.fill_in_the_middle import RecogniseFim, render_fim
from router.steps.fit_prompt import first_part, last_part

FAMILIES = {family.name: family for family in read_families(ROOT / "config" / "fim.yaml")}
# As the model cards and papers give them.
PROMPTS = {
    "qwen": "<|fim_prefix|>A<|fim_suffix|>B<|fim_middle|>",
    "starcoder": "<fim_prefix>A<fim_suffix>B<fim_middle>",
    "deepseek": "<｜fim▁begin｜>A<｜fim▁hole｜>B<｜fim▁end｜>",
    "codellama": "<PRE> A <SUF>B <MID>",
    "codestral": "[SUFFIX]B[PREFIX]A",
    "granite": "<|fim_prefix|>A<|fim_suffix|>B<|fim_middle|>",
    "mellum": "<fim_suffix>B<fim_prefix>A<fim_middle>",
    "seed-coder": "<[fim-suffix]>B<[fim-prefix]>A<[fim-middle]>",
    "prefix-only": "A",
}
MODELS = {
    "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ": "qwen",
    "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8": "qwen",
    "bigcode/starcoder2-15b": "starcoder",
    "deepseek-ai/deepseek-coder-33b-instruct": "deepseek",
    "codellama/CodeLlama-13b-hf": "codellama",
    "mistralai/Codestral-22B-v0.1": "codestral",
    "models/smollm2-135m-instruct": "prefix-only",
    "Qwen/Qwen3.6-35B-A3B-FP8": "qwen",
    "Qwen/Qwen3.8-27B-FP8": "qwen",
    "ibm-granite/granite-4.0-h-tiny": "granite",
    "ibm-granite/granite-3b-code-base": "starcoder",
    "JetBrains/Mellum-4b-base": "mellum",
    "ByteDance-Seed/Seed-Coder-8B-Base": "seed-coder",
    "zed-industries/zeta-2": "zeta",
    "sweepai/sweep-next-edit-v2-7B": "sweep",
    "Qwen/Qwen2.5-14B-Instruct": None,
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompt_of_each_family(name: str) -> None:
    assert FAMILIES[name].render("A", "B") == PROMPTS[name]


def test_every_family_is_tested() -> None:
    assert set(FAMILIES) == set(PROMPTS) | {"zeta", "sweep"}


@pytest.mark.parametrize("model", MODELS)
def test_family_by_model_name(model: str) -> None:
    family = family_of(model, list(FAMILIES.values()))
    assert (family.name if family else None) == MODELS[model]


def test_texts_that_look_like_placeholders_stay_texts() -> None:
    assert FAMILIES["qwen"].render("{suffix}", "{prefix}") == (
        "<|fim_prefix|>{suffix}<|fim_suffix|>{prefix}<|fim_middle|>"
    )


def test_the_templates_own_tokens_end_a_completion() -> None:
    for family in FAMILIES.values():
        assert family.predicts_edits or set(family.tokens) <= set(family.stop)


def asked(model: str, body: dict[str, Any], mode: Mode = "chat") -> Exchange:
    """What becomes of a completion for `model`."""
    exchange = Exchange("/v1/completions", alias="coder", body={"model": "coder", **body})
    families = list(FAMILIES.values())
    models = {"coder": Model("coder", (), model, 1, 100, family_of(model, families), mode=mode)}
    RecogniseFim(models, families, 24)(exchange)
    render_fim(exchange)
    return exchange


def test_a_model_that_cannot_fill_in_says_that_it_ignored_the_suffix(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        exchange = asked("models/smollm2-135m-instruct", {"prompt": "a", "suffix": "b"})
    assert exchange.body["prompt"] == "a"
    assert "suffix" not in exchange.body
    assert exchange.headers == {"x-duoserve-suffix": "ignored"}
    assert "'coder' does not fill in the middle" in caplog.text


def test_a_suffix_that_is_used_or_empty_is_not_said_to_be_ignored() -> None:
    qwen, smollm = "Qwen/Qwen2.5-Coder-7B", "models/smollm2-135m-instruct"
    assert (asked(qwen, {"prompt": "a", "suffix": "b"})).headers == {}
    assert (asked(smollm, {"prompt": "a", "suffix": ""})).headers == {}
    assert (asked(smollm, {"prompt": "a"})).headers == {}


# As Zed writes them (crates/zeta_prompt, crates/edit_prediction/src/sweep_prompt.rs), shortened.
ZETA = (
    "<[fim-suffix]>\n<[fim-prefix]><filename>edit_history\n--- a/m.py\n+++ b/m.py\n-x = 1\n+x = 2\n\n"
    "<filename>m.py\n<|marker_1|>x = 2\n<|user_cursor|>print(x)\n<|marker_2|><[fim-middle]>"
)
SWEEP = (
    "<|file_sep|>m.py.diff\noriginal:\nx = 1\nupdated:\nx = 2\n<|file_sep|>original/m.py\nx = 1\n"
    "<|file_sep|>current/m.py\nx = 2\n<|file_sep|>updated/m.py\n"
)


@pytest.mark.parametrize(
    ("model", "prompt", "stop"),
    [
        ("zed-industries/zeta-2", ZETA, ["<[end▁of▁sentence]>"]),
        ("sweepai/sweep-next-edit-v2-7B", SWEEP, ["<|file_sep|>", "</s>"]),
    ],
)
def test_a_prompt_for_the_next_edit_passes_as_it_is(model: str, prompt: str, stop: list[str]) -> None:
    exchange = asked(model, {"prompt": prompt, "stop": stop, "max_tokens": 256})
    assert exchange.urgent and exchange.headers == {}
    # The engine finds special tokens as stop strings only if they appear in the text.
    assert exchange.body == {
        "model": "coder",
        "prompt": prompt,
        "stop": stop,
        "max_tokens": 256,
        "skip_special_tokens": False,
    }
    with pytest.raises(ApiError, match="does not fill in the middle"):
        asked(model, {"prompt": "a", "suffix": "b"})


def test_stops_that_are_plain_text_change_nothing() -> None:
    body = {"prompt": "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "stop": "\n\n"}
    assert asked("Qwen/Qwen2.5-Coder-7B", body).body == {"model": "coder", **body}


def test_all_that_a_model_for_autocompletion_is_asked_is_urgent() -> None:
    assert asked("some/model", {"prompt": "def add("}, "completion").urgent
    assert not asked("some/model", {"prompt": "def add("}).urgent


@given(st.text(alphabet="ab\n", max_size=5000), st.floats(-0.1, 1.2))
def test_a_cut_prefix_is_an_end_and_no_longer_than_its_share(text: str, share: float) -> None:
    part = last_part(text, share)
    assert text.endswith(part)
    assert len(part) <= max(len(text) * share, 0) + 1 or share >= 1


@given(st.text(alphabet="ab\n", max_size=5000), st.floats(-0.1, 1.2))
def test_a_cut_suffix_is_a_start_and_no_longer_than_its_share(text: str, share: float) -> None:
    part = first_part(text, share)
    assert text.startswith(part)
    assert len(part) <= max(len(text) * share, 0) or share >= 1
