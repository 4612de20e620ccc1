from router.models import Model
from router.readiness import Readiness

MODELS = {
    "coder": Model("coder", ("http://a", "http://c"), "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8", 8, 32768),
    "general": Model("general", ("http://b",), "models/smollm2", 8, 8192),
}

FIRST, SECOND = MODELS["coder"].replicas
(ONLY,) = MODELS["general"].replicas


def test_loading_until_it_serves_then_down_until_it_serves_again() -> None:
    readiness = Readiness(MODELS)
    seen = []
    for healthy in (False, True, False, False, True):
        readiness.observe(ONLY, healthy, "because")
        seen.append(readiness.status["general"].state)
    assert seen == ["loading", "ready", "down", "down", "ready"]
    assert readiness.as_json()["status"] == "ready"
    assert readiness.as_json()["models"]["coder"]["state"] == "loading"


def test_since_changes_with_the_state_only() -> None:
    readiness = Readiness(MODELS)
    readiness.observe(ONLY, True, "serving")
    since = readiness.status["general"].since
    readiness.observe(ONLY, True, "serving")
    assert readiness.status["general"].since == since
    readiness.observe(ONLY, False, "gone")
    assert readiness.status["general"].since > since
    assert readiness.as_json()["status"] == "unavailable"


def test_a_model_is_what_the_best_of_its_engines_is() -> None:
    readiness = Readiness(MODELS)
    changes: list[str] = []
    readiness.watch(changes.append)
    readiness.observe(SECOND, True, "serving")
    assert readiness.status["coder"].reason == "serving with 1 of 2 engines"
    assert readiness.ready("coder") == [SECOND]
    readiness.observe(FIRST, True, "serving")
    assert readiness.status["coder"].reason == "serving"
    since = readiness.status["coder"].since
    readiness.observe(SECOND, False, "gone")
    assert readiness.status["coder"].state == "ready" and readiness.status["coder"].since == since
    readiness.observe(FIRST, False, "gone too")
    assert (readiness.status["coder"].state, readiness.status["coder"].reason) == ("down", "gone too")
    readiness.observe(ONLY, True, "serving")
    assert changes == ["coder"] * 4 + ["general"]
