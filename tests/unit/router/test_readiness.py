from router.aliases import models_list, published_names
from router.engines import Engine
from router.readiness import Readiness

ENGINES = {
    "coder": Engine("coder", "http://a", "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8", 8, 32768),
    "general": Engine("general", "http://b", "models/smollm2", 8, 8192),
}


def test_loading_until_it_serves_then_down_until_it_serves_again() -> None:
    readiness = Readiness(ENGINES)
    seen = []
    for healthy in (False, True, False, False, True):
        readiness.observe("coder", healthy, "because")
        seen.append(readiness.status["coder"].state)
    assert seen == ["loading", "ready", "down", "down", "ready"]
    assert readiness.as_json()["status"] == "ready"
    assert readiness.as_json()["models"]["general"]["state"] == "loading"


def test_since_changes_with_the_state_only() -> None:
    readiness = Readiness(ENGINES)
    readiness.observe("coder", True, "serving")
    since = readiness.status["coder"].since
    readiness.observe("coder", True, "serving")
    assert readiness.status["coder"].since == since
    readiness.observe("coder", False, "gone")
    assert readiness.status["coder"].since > since
    assert readiness.as_json()["status"] == "unavailable"


def test_names_that_clients_may_use() -> None:
    names = published_names(ENGINES, {"gpt-4o": "general"})
    assert names == {
        "coder": "coder",
        "general": "general",
        "qwen3-coder-30b-a3b-instruct-fp8": "coder",
        "smollm2": "general",
        "gpt-4o": "general",
    }
    assert {m["id"]: m["max_model_len"] for m in models_list(names, ENGINES)["data"]}["gpt-4o"] == 8192
