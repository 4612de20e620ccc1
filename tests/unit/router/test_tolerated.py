import shutil
from pathlib import Path

import pytest

from router.errors import ApiError, BadSettings
from router.models import engine_device
from router.paths import CHAT, RESPONSES
from router.schemas import BY_PATH
from router.settings import ROOT, Settings
from router.steps.check_parameters import Tolerated

TOLERATED = Tolerated.read(ROOT / "config" / "parameters.yaml", "cpu")


def test_what_clients_send_for_other_servers_is_left_out() -> None:
    sent = {"model": "coder", "cache_prompt": True, "samplers": "edkypmxt", "max_tokens": -1}
    assert TOLERATED.without(sent, CHAT) == ({"model": "coder"}, ["cache_prompt", "samplers"])


def test_a_value_that_means_something_stays() -> None:
    assert TOLERATED.without({"max_tokens": 20}, CHAT) == ({"max_tokens": 20}, [])
    assert TOLERATED.without({"stream_options": {}}, CHAT) == ({"stream_options": {}}, [])
    assert TOLERATED.without({"stream_options": {}}, RESPONSES) == ({}, ["stream_options"])


def test_null_is_as_if_it_were_not_sent() -> None:
    sent = {"audio": None, "container": None, "previous_response_id": None, "anything": None}
    for path in BY_PATH:
        assert TOLERATED.without(sent, path) == ({}, [])


def test_what_would_make_the_answer_wrong_is_refused_with_a_remedy() -> None:
    with pytest.raises(ApiError, match="send the whole conversation") as caught:
        TOLERATED.without({"previous_response_id": "resp_1"}, RESPONSES)
    assert (caught.value.status, caught.value.param) == (400, "previous_response_id")


def test_no_parameter_of_an_api_is_in_the_table() -> None:
    """Otherwise a parameter that works would be dropped without a word."""
    for path, model in BY_PATH.items():
        dropped = {name for name, where in TOLERATED.dropped.items() if path in where}
        assert not (dropped | set(TOLERATED.refused[path])) & set(model.model_fields), path


def test_only_engines_that_cannot_take_a_parameter_do_without_it() -> None:
    assert TOLERATED.unable == {"seed"}
    assert Tolerated.read(ROOT / "config" / "parameters.yaml", "cuda").unable == set()


@pytest.mark.parametrize(("profile", "device"), [("cpu", "cpu"), ("ada-24gb", "cuda")])
def test_a_copied_profile_keeps_what_its_engines_cannot_take(
    tmp_path: Path, profile: str, device: str
) -> None:
    shutil.copytree(ROOT / "config" / "engines" / profile, tmp_path / "mine")
    assert engine_device(Settings.model_construct(profile=str(tmp_path / "mine"))) == device


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "parameters.yaml"
    path.write_text("dropped: {a: {}}")
    with pytest.raises(BadSettings, match=r"parameters\.yaml"):
        Tolerated.read(path, "cpu")
