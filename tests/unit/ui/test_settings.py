import pytest

from ui import settings

GOOD = {
    "LITELLM_MASTER_KEY": "k" * 32,
    "BIND_ADDRESS": "127.0.0.1",
    "UI_PORT": "8501",
    "ROUTER_PORT": "4000",
    "ROUTER_URL": "",
    "CONTEXT_RATIO": "0.75",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("bind", "url", "router", "private"),
    [
        ("127.0.0.1", "", "http://127.0.0.1:4000", True),
        ("0.0.0.0", "", "http://127.0.0.1:4000", False),
        ("::", "", "http://[::1]:4000", False),
        ("192.168.1.5", "", "http://192.168.1.5:4000", False),
        ("0.0.0.0", "http://router:4000/", "http://router:4000", False),
        ("::1", "", "http://[::1]:4000", True),
    ],
)
def test_the_router_is_found_and_sign_in_asked_for(
    monkeypatch: pytest.MonkeyPatch, bind: str, url: str, router: str, private: bool
) -> None:
    monkeypatch.setenv("BIND_ADDRESS", bind)
    monkeypatch.setenv("ROUTER_URL", url)
    chosen = settings.load()
    assert (chosen.router, chosen.only_this_machine) == (router, private)


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, None) for name in GOOD]
    + [(name, "") for name in GOOD if name != "ROUTER_URL"]
    + [("LITELLM_MASTER_KEY", "short"), ("UI_PORT", "x"), ("ROUTER_PORT", "99999"), ("CONTEXT_RATIO", "2")],
)
def test_a_bad_setting_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(settings.InvalidSettings) as failure:
        settings.load()
    said = str(failure.value)
    assert said.startswith(name) and "\n" not in said and "k" * 32 not in said
