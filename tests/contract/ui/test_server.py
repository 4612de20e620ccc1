"""The chat app's own process."""

from pathlib import Path

from tests.browser.service import Service, fetch
from tests.support.waiting import wait_for


def test_the_users_own_streamlit_configuration_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "config.toml").write_text('[server]\nbaseUrlPath = "elsewhere"\n')
    service = Service(tmp_path)
    service.start("ui", HOME=str(tmp_path))
    try:
        wait_for(lambda: fetch(f"{service.url('ui')}/_stcore/health") == "ok", f"see {tmp_path}/ui.log")
    finally:
        service.stop()
