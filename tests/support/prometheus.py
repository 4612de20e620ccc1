"""A real Prometheus with this project's rules, for tests that look at what it sees."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support import ROOT
from tests.support.ports import free_port
from tests.support.waiting import wait_for

CONFIG = ROOT / "config" / "prometheus"


class Prometheus:
    """Scrapes every half second what `host.yml` names, at the addresses of the test's own services.

    Alerts fire at once: their expressions are the real ones, their `for` is nought.
    """

    def __init__(self, folder: Path, router: str, key: str, engines: dict[str, str], **others: str) -> None:
        """`router` and `engines` (by alias) are URLs; `others` are further jobs with their URLs."""
        self._folder = folder
        self._address = f"127.0.0.1:{free_port()}"
        shutil.copytree(CONFIG / "rules", folder / "rules")
        alerts = folder / "rules" / "alerts.yml"
        rules = yaml.safe_load(alerts.read_text())
        for rule in rules["groups"][0]["rules"]:
            rule["for"] = "0s"
        alerts.write_text(yaml.safe_dump(rules))
        configuration = yaml.safe_load((CONFIG / "host.yml").read_text())
        configuration["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        jobs = {job["job_name"]: job for job in configuration["scrape_configs"]}
        jobs["router"]["static_configs"][0]["targets"] = [_target(router)]
        jobs["router"]["authorization"] = {"credentials_file": str(folder / "key")}
        for group in jobs["engine"]["static_configs"]:
            group["targets"] = [_target(engines[group["labels"]["alias"]])]
        for name, url in others.items():
            configuration["scrape_configs"].append(
                {"job_name": name, "static_configs": [{"targets": [_target(url)]}]}
            )
        (folder / "key").write_text(f"{key}\n")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))

    def __enter__(self) -> "Prometheus":
        """Starts it and waits until it has scraped every target."""
        command = ["prometheus", f"--config.file={self._folder}/prometheus.yml"]
        command += [f"--storage.tsdb.path={self._folder}/data", f"--web.listen-address={self._address}"]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(self._sees_all, "Prometheus sees every target")
        return self

    def __exit__(self, *exc: object) -> None:
        """Stops it."""
        self._process.terminate()
        self._process.wait(30)

    def _sees_all(self) -> bool:
        assert self._process.poll() is None, (self._folder / "prometheus.log").read_text()
        try:
            up = self.query("up")
        except httpx.HTTPStatusError:  # it is starting
            return False
        return len(up) >= 3 and all(series["value"][1] == "1" for series in up)

    def query(self, expression: str) -> list[Any]:
        """The series that an instant query gives now."""
        answer = httpx.get(
            f"http://{self._address}/api/v1/query", params={"query": expression}, timeout=60
        ).raise_for_status()
        found: list[Any] = answer.json()["data"]["result"]
        return found

    def firing(self) -> dict[str, dict[str, str]]:
        """The labels of the alerts that fire, by name."""
        answer = httpx.get(f"http://{self._address}/api/v1/alerts", timeout=60).raise_for_status()
        alerts = answer.json()["data"]["alerts"]
        return {a["labels"]["alertname"]: a["labels"] for a in alerts if a["state"] == "firing"}


def _target(url: str) -> str:
    return url.removeprefix("http://")
