from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests import settings
from loadtests.judge import slo
from loadtests.judge.objectives import Degradation, Percentile
from loadtests.judge.verdict import Verdict, exit_status, outlook
from loadtests.measure.sample import Sample
from loadtests.measure.stage import GeneratorHealth, Stage
from loadtests.settings import SettingError


def samples(
    count: int, *, ttft: float = 100, total: float = 1000, kind: str = "completion", **more: Any
) -> list[Sample]:
    return [
        Sample(kind, float(i), ttft=ttft + i * 0.01, total=total + i * 0.01, completion_tokens=60, **more)
        for i in range(count)
    ]


def stage(users: int, found: list[Sample], health: GeneratorHealth | None = None) -> Stage:
    return Stage(users, 0, float(len(found)), found, health or GeneratorHealth())


def verdicts(
    *stages: Stage, suite: str = "completion", answers: dict[str, str] | None = None
) -> dict[str, Verdict]:
    found = slo.judge(stages, suite, slo.load("gpu"), answers or {})
    return {verdict.name: verdict for verdict in found}


def value(verdict: Verdict) -> float:
    assert verdict.estimate is not None
    return verdict.estimate.value


TTFT = "p95 time to first token, streaming"
COMPLETION = "p95 of a completion of 50-100 tokens"
DEGRADATION = "no degradation: p95 under load / at 1 user"
CHANGED = "answers that begin differently from those given alone"


def test_without_text_leaves_every_objective_that_needs_no_sane_model() -> None:
    everything = slo.load("gpu")
    left = {objective.name for objective in everything.without_text().items}
    assert {objective.name for objective in everything.items} - left == {"answers with garbage", CHANGED}
    assert slo.promises().without_text() == slo.promises()


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (["met", "met", "met"], "will keep every promise"),
        (["met", "missed", "no verdict"], f"will miss: {COMPLETION}."),
        (["no verdict", "met", "no verdict"], f"may keep or miss: {TTFT}; {DEGRADATION}."),
    ],
)
def test_what_random_weights_tell_of_the_promises(states: list[str], told: str) -> None:
    promises = [
        Verdict(promise.name, True, "ttft", "ms", 1, False, state, "", 5)
        for promise, state in zip(slo.promises().items, states, strict=True)
    ]
    assert told in outlook(promises, "blackwell-96gb")


def test_promises_of_the_readme_come_first() -> None:
    ttft, completion, degradation = slo.promises().items
    assert isinstance(ttft, Percentile)
    assert (ttft.metric, ttft.percentile, ttft.limit) == ("ttft", 95, 500)
    assert isinstance(completion, Percentile)
    assert (completion.metric, completion.percentile, completion.limit) == ("total", 95, 2000)
    assert isinstance(degradation, Degradation)
    assert degradation.compared_to == 1
    assert slo.promises().users == 5


def test_all_met() -> None:
    found = verdicts(stage(1, samples(80)), stage(5, samples(80)))
    assert {verdict.verdict for verdict in found.values()} == {"met"}
    assert exit_status(list(found.values())) == 0


def test_a_slow_first_token_is_missed_and_says_by_how_much() -> None:
    found = verdicts(stage(5, samples(80, ttft=600)))
    assert found[TTFT].verdict == "missed"
    assert "over the limit by 20%" in found[TTFT].why
    assert found[COMPLETION].verdict == "met"
    assert exit_status(list(found.values())) == 1


def test_too_few_requests_are_no_verdict_and_no_pass() -> None:
    found = verdicts(stage(5, samples(30)))
    assert found[TTFT].verdict == "no verdict"
    assert "only 30 answers" in found[TTFT].why
    assert exit_status(list(found.values())) == 2


def test_a_clear_miss_needs_no_more_requests() -> None:
    assert verdicts(stage(5, samples(60, ttft=5000)))[TTFT].verdict == "missed"


def test_degradation_compares_five_users_with_one() -> None:
    found = verdicts(stage(1, samples(80, total=600)), stage(5, samples(80, total=1500)))
    assert found[DEGRADATION].verdict == "missed"
    assert value(found[DEGRADATION]) == pytest.approx(2.5, rel=0.01)
    assert found[COMPLETION].verdict == "met"


def test_saturated_generator_gives_no_verdict() -> None:
    found = verdicts(stage(5, samples(80), GeneratorHealth(cpu=0.97)))
    assert {verdict.verdict for verdict in found.values()} == {"no verdict"}
    assert "saturated" in found[TTFT].why


def test_failures_and_refusals_are_no_latencies() -> None:
    slow_refusals = samples(20, ttft=9000, total=9000, outcome="rejected")
    found = verdicts(stage(5, samples(100) + slow_refusals))
    assert found[TTFT].verdict == "met"
    assert found["refused requests (429, 503)"].verdict == "missed"
    found = verdicts(stage(5, samples(80) + samples(5, outcome="truncated")))
    assert found["failed requests"].verdict == "missed"
    assert found["goodput: requests within all of the above limits"].verdict == "missed"


def test_changed_answers_are_counted_against_those_given_alone() -> None:
    alone = "It sorts the words by length and takes the first three."
    canaries = samples(10, kind="canary", canary="canary-1", text=alone)
    canaries[0].text = "It It It It It It"
    canaries[1].text = "It sorts the words by their length. Then it takes three."  # as batching may change it
    found = verdicts(stage(5, samples(80) + canaries), answers={"canary-1": alone})
    assert value(found[CHANGED]) == pytest.approx(0.1)


def test_limits_on_a_cpu_follow_what_it_does_but_the_promises_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "MEASURED", tmp_path / "precision.json")
    quick_cpu = {"step_1_ms": 10, "step_5_ms": 20, "prompt_tokens_per_s": 1500}
    slow_cpu = {"step_1_ms": 100, "step_5_ms": 200, "prompt_tokens_per_s": 150}
    record = {"quickest": "quick", "figures": {"quick": quick_cpu, "slow": slow_cpu}}
    settings.MEASURED.write_text(json.dumps(record))
    monkeypatch.setenv("CPU_PRECISION", "auto")
    quick = {objective.name: objective.limit for objective in slo.load("cpu").items}
    monkeypatch.setenv("CPU_PRECISION", "slow")
    slow = {objective.name: objective.limit for objective in slo.load("cpu").items}
    for name in (TTFT, COMPLETION):
        assert slow[name] == pytest.approx(10 * quick[name])
    assert quick[COMPLETION] == pytest.approx(100 * 20 + 6000 / 1500 * 1000)
    assert slow[DEGRADATION] == quick[DEGRADATION]
    assert {o.name: o.limit for o in slo.promises().items}[COMPLETION] == 2000


def test_without_a_measurement_there_are_no_limits_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "MEASURED", tmp_path / "precision.json")
    with pytest.raises(SettingError, match=r"\./run setup"):
        slo.load("cpu")


def test_a_wrong_objective_is_named(tmp_path: Path) -> None:
    path = tmp_path / "slo.toml"
    for entry, says in (
        ('metrik = "ttft"', r"'x'.*metrik"),
        ('metric = "tfft"\npercentile = 95', r"'x'.*'tfft' is none of ttft"),
        ('metric = "ttft"', r"'x'.*'ttft' is none of goodput"),
    ):
        path.write_text(f'users = 5\n[[objective]]\nname = "x"\nlimit = 1\n{entry}\n')
        with pytest.raises(slo.ObjectiveError, match=says):
            slo.load("cpu", path)
    path.write_text("users = 5\n")
    with pytest.raises(slo.ObjectiveError, match="'objective' is missing"):
        slo.load("cpu", path)


def test_the_levels_are_those_that_are_compared() -> None:
    assert slo.load("blackwell-96gb").levels() == [1, 5]


def test_enough_waits_for_every_percentile() -> None:
    objectives = slo.load("gpu")
    assert not slo.enough(objectives, "mixed", 5, samples(71))
    assert slo.enough(objectives, "mixed", 5, samples(72))
    assert slo.enough(objectives, "mixed", 1, samples(20))


def test_a_soak_is_held_to_its_drift() -> None:
    steady = stage(5, [Sample("chat", float(i), ttft=100, total=1000) for i in range(200)])
    steady.memory = {"router": [(i * 10.0, 300.0) for i in range(20)]}
    found = verdicts(steady, suite="soak")
    assert found["drift of p95 latency, last quarter / first quarter"].verdict == "met"
    assert found["growth of memory, last quarter / first quarter"].verdict == "met"
    drifting = stage(5, [Sample("chat", float(i), ttft=100, total=1000 + 5 * i) for i in range(200)])
    drifting.memory = {
        "router": [(i * 10.0, 300.0) for i in range(20)],
        "coder": [(0.0, 900.0)] * 10 + [(1.0, 1500.0)] * 10,
    }
    found = verdicts(drifting, suite="soak")
    assert found["drift of p95 latency, last quarter / first quarter"].verdict == "missed"
    memory = found["growth of memory, last quarter / first quarter"]
    assert memory.verdict == "missed"
    assert "coder grew most" in memory.why


def replayed(
    sessions: int, cached: int = 950, turns: int = 12, ok: int = 12, ttft: float = 100
) -> list[Sample]:
    """Sessions whose prompts grow by 1,000 tokens a turn, of which `ok` turns have an answer."""
    return [
        Sample(
            "turn" if turn else "first turn",
            float(turn),
            ttft=ttft,
            total=ttft + 100,
            prompt_tokens=1000 * (turn + 1),
            cached_tokens=cached * turn,
            session=f"s/{number}",
            turn=turn,
            turns=turns,
            outcome="ok" if turn < ok else "timeout",
        )
        for number in range(sessions)
        for turn in range(turns)
    ]


HITS = "tokens of the turn before that are found in the prefix cache"
TURN = "p95 time to first token of an agent's later turns"
SESSION = "p50 of a session's time, without the pauses"


def test_replays_are_judged_by_cache_turns_and_sessions() -> None:
    found = verdicts(stage(5, replayed(8)), suite="agent-replay")
    assert {found[name].verdict for name in (HITS, TURN, SESSION)} == {"met"}
    assert value(found[HITS]) == pytest.approx(0.95)
    assert value(found[SESSION]) == pytest.approx(12 * 200)
    cold = verdicts(stage(5, replayed(8, cached=900, ttft=5000)), suite="agent-replay")
    assert {cold[name].verdict for name in (HITS, TURN, SESSION)} == {"missed"}


def test_a_saturated_generator_still_tells_what_was_in_the_cache() -> None:
    found = verdicts(stage(5, replayed(8), GeneratorHealth(cpu=0.97)), suite="agent-replay")
    assert found[HITS].verdict == "met"
    assert found[TURN].verdict == found[SESSION].verdict == "no verdict"


def test_what_a_session_has_more_in_the_cache_does_not_make_up_for_another() -> None:
    found = verdicts(stage(5, replayed(4, cached=2000) + replayed(4, cached=0)[:12]), suite="agent-replay")
    assert found[HITS].verdict == "missed"


def test_sessions_that_broke_off_have_no_time_and_silent_engines_no_share() -> None:
    broken = replayed(8, ok=6)
    for sample in broken:
        sample.cached_tokens = None
    found = verdicts(stage(5, broken), suite="agent-replay")
    assert found[SESSION].verdict == found[HITS].verdict == "no verdict"
    assert "no engine says" in found[HITS].why


def test_a_replay_goes_on_until_whole_sessions_can_be_judged() -> None:
    objectives = slo.load("gpu")
    assert not slo.enough(objectives, "agent-replay", 5, replayed(12, ok=11))
    assert slo.enough(objectives, "agent-replay", 5, replayed(12))
