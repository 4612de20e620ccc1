"""The promises of loadtests/slo.toml, which each request keeps or breaks."""

import json
import tomllib
from collections.abc import Mapping
from typing import Any

from router.errors import BadSettings, is_failure
from router.exchange import Exchange
from router.paths import INFERENCE
from router.settings import ROOT

_OBJECTIVES = ROOT / "loadtests" / "slo.toml"
_MEASURED = ROOT / "data" / "cache" / "precision.json"  # by services/engine/precision.py
TTFT, COMPLETION, AVAILABILITY = "ttft", "completion", "availability"
# The promise for completions is about answers with this number of tokens.
COMPLETION_TOKENS = range(50, 101)


class Promises:
    """What is promised of each request:

    - `ttft`: the first token of a stream comes within a time;
    - `completion`: an answer of 50 to 100 tokens is complete within a time;
    - `availability`: the service does not fail.

    `objectives` are the shares of requests (0-1) that are to keep each of them.
    """

    def __init__(self, profile: str, precision: str) -> None:
        """`profile` is the setting PROFILE; `precision`, CPU_PRECISION.

        Raises:
            BadSettings: slo.toml lacks one of these promises.
        """
        self._precision = precision
        try:
            entries = tomllib.loads(_OBJECTIVES.read_text())["objective"]
            promised = [each for each in entries if each.get("promise") and "compared_to" not in each]
            (ttft,) = (each for each in promised if each["metric"] == "ttft")
            (completion,) = (each for each in promised if each["metric"] == "total")
            (failed,) = (each for each in entries if each["metric"] == "failed")
            times = {TTFT: ttft, COMPLETION: completion}
            self.objectives = {name: entry["percentile"] / 100 for name, entry in times.items()}
            self.objectives[AVAILABILITY] = 1 - failed["limit"]
            self._times = {
                name: entry | entry.get("profile", {}).get(profile, {}) for name, entry in times.items()
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadSettings(f"{_OBJECTIVES} lacks a promise ({type(error).__name__}: {error})") from None
        self._limits: dict[str, float] = {}

    @property
    def limits(self) -> Mapping[str, float]:
        """Seconds, by promise. Empty on a CPU that was not measured: there, a limit is stated as work."""
        if not self._limits:
            speed = self._measured() if any("steps" in each for each in self._times.values()) else None
            self._limits = {
                name: seconds
                for name, entry in self._times.items()
                if (seconds := _seconds(entry, speed)) is not None
            }
        return self._limits

    def _measured(self) -> tuple[float, float] | None:
        """Seconds of a step of five requests, and tokens of a prompt read in a second."""
        try:
            record = json.loads(_MEASURED.read_text())
            name = record["quickest"] if self._precision == "auto" else self._precision
            figures = record["figures"][name]
            return figures["step_5_ms"] / 1000, float(figures["prompt_tokens_per_s"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def judge(self, exchange: Exchange, status: int, ttft: float | None, seconds: float) -> dict[str, bool]:
        """Of each promise that is about a request, whether it was kept.

        Args:
            exchange: the request, which has ended.
            status: of the response; 0 if there was none.
            ttft: seconds to the first token, if it is a stream that got so far.
            seconds: duration of the request.
        """
        if exchange.path not in INFERENCE:
            return {}
        kept: dict[str, bool] = {}
        served = status == 200 and not exchange.reason
        # What a client did wrong, what a limit or the queue refused, and clients that left do not count.
        if served or (is_failure(status, exchange.reason) and not exchange.aborted):
            kept[AVAILABILITY] = served
        # The promised times are those of completions and chats; agents send longer prompts.
        if exchange.body.get("tools"):
            return kept
        if exchange.stream and TTFT in self.limits:
            if ttft is not None:
                kept[TTFT] = ttft <= self.limits[TTFT]
            elif exchange.aborted and seconds > self.limits[TTFT]:
                kept[TTFT] = False  # gave up waiting
        complete = served and not exchange.aborted
        if complete and exchange.completion_tokens in COMPLETION_TOKENS and COMPLETION in self.limits:
            kept[COMPLETION] = seconds <= self.limits[COMPLETION]
        return kept


def _seconds(entry: Mapping[str, Any], speed: tuple[float, float] | None) -> float | None:
    """The limit of an entry of slo.toml; None if it depends on a speed that is not known."""
    if "steps" not in entry:
        return float(entry["limit"]) / 1000
    if speed is None:
        return None
    step, tokens_per_second = speed
    return float(entry["steps"] * step + entry["prompt_tokens"] / tokens_per_second)
