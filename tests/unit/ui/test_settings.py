import pytest

from ui import settings

GOOD = {
    "LITELLM_MASTER_KEY": "k" * 32,
    "BIND_ADDRESS": "127.0.0.1",
    "UI_PORT": "8501",
    "ROUTER_PORT": "4000",
    "ROUTER_URL": "http://127.0.0.1:4000",
    "CONTEXT_RATIO": "0.75",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("bind", "private"),
    [
        ("127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("::1", True),
        ("::1:2", False),
    ],
)
def test_sign_in_is_asked_for_where_others_reach_the_app(
    monkeypatch: pytest.MonkeyPatch, bind: str, private: bool
) -> None:
    monkeypatch.setenv("BIND_ADDRESS", bind)
    assert settings.load().only_this_machine == private


def test_the_router_s_address_needs_no_slash_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_URL", "http://router:4000/")
    assert settings.load().router_url == "http://router:4000"


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, None) for name in GOOD]
    + [(name, "") for name in GOOD]
    + [
        ("LITELLM_MASTER_KEY", "short"),
        ("UI_PORT", "x"),
        ("ROUTER_URL", "router:4000"),
        ("ROUTER_PORT", "99999"),
        ("CONTEXT_RATIO", "2"),
    ],
)
def test_a_bad_setting_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(settings.InvalidAppSetting) as failure:
        settings.load()
    said = str(failure.value)
    assert said.startswith(name) and "\n" not in said and "k" * 32 not in said
