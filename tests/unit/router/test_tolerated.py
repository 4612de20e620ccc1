import shutil
from pathlib import Path

import pytest

from router.errors import BadSettings
from router.models import engine_device
from router.schemas import BY_PATH
from router.settings import ROOT, Settings
from router.steps.check_parameters import Tolerated

TOLERATED = Tolerated.read(ROOT / "config" / "parameters.yaml", "cpu")


def test_what_clients_send_for_other_servers_is_left_out() -> None:
    sent = {"model": "coder", "cache_prompt": True, "samplers": "edkypmxt", "max_tokens": -1}
    assert TOLERATED.without(sent) == {"model": "coder"}


def test_a_value_that_means_something_stays() -> None:
    assert TOLERATED.without({"max_tokens": 20}) == {"max_tokens": 20}


def test_no_parameter_of_an_api_is_in_the_table() -> None:
    """Otherwise a parameter that works would be dropped without a word."""
    for path, model in BY_PATH.items():
        assert not TOLERATED.dropped & set(model.model_fields), path


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
