from router.contract import texts


def test_the_contracts_say_what_the_router_checks() -> None:
    for path, text in texts().items():
        assert path.read_text() == text, f"{path.name} is out of date: run python -m router.contract"
