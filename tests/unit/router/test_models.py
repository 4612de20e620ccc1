from router.fim import Family
from router.models import Model, models_list, published_names

QWEN = Family("qwen", ("qwen3-coder",), "<P>{prefix}<S>{suffix}<M>", ())
PREFIX_ONLY = Family("prefix-only", ("smollm",), "{prefix}", ())
MODELS = {
    "coder": Model(
        "coder", ("http://a", "http://c"), "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8", 8, 32768, QWEN
    ),
    "general": Model("general", ("http://b",), "models/smollm2", 8, 8192, PREFIX_ONLY),
}


def test_names_that_clients_may_use() -> None:
    names = published_names(MODELS, {"gpt-4o": "general"})
    assert names == {
        "coder": "coder",
        "general": "general",
        "qwen3-coder-30b-a3b-instruct-fp8": "coder",
        "smollm2": "general",
        "gpt-4o": "general",
    }
    assert {m["id"]: m["max_model_len"] for m in models_list(names, MODELS)["data"]}["gpt-4o"] == 8192


def test_the_list_says_which_models_use_a_suffix() -> None:
    listed = models_list({"coder": "coder", "general": "general", "gpt-4o": "general"}, MODELS)["data"]
    assert {model["id"]: model["fill_in_the_middle"] for model in listed} == {
        "coder": True,
        "general": False,
        "gpt-4o": False,
    }
    unknown = {"coder": Model("coder", (), "some/model", 8, 8192)}
    assert models_list({"coder": "coder"}, unknown)["data"][0]["fill_in_the_middle"] is False


def test_the_list_has_real_names_for_people() -> None:
    names = {"coder": "coder", "gpt-4o": "general"}
    assert [model["display_name"] for model in models_list(names, MODELS)["data"]] == [
        "Qwen3-Coder-30B-A3B-Instruct-FP8",
        "smollm2",
    ]


def test_the_list_says_which_models_take_pictures() -> None:
    models = {"eyes": Model("eyes", (), "some/vl", 8, 8192, sees=True), "coder": MODELS["coder"]}
    listed = models_list({"eyes": "eyes", "coder": "coder"}, models)["data"]
    assert [model["supports_vision"] for model in listed] == [True, False]
