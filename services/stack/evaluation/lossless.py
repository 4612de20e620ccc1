"""`./run eval lossless`: whether speculation, or another option of vLLM, leaves greedy answers as they are.

One engine of a profile is started without the option and then with it, and asked the same questions,
greedily: one after the other, again (now the prefix cache knows them), and five at once. Speculation that
works gives the same tokens, except where two tokens are almost equally likely: the order of floating-point
sums depends on how many tokens are computed together. The engine without the option shows how often that
happens, because its own three rounds ought to be the same as well. An option that changes more is refused.
"""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from rich.table import Table

from services.stack import models, precision
from services.stack.commands.setup import prepare_engine
from services.stack.console import console
from services.stack.environments import BY_NAME, ROOT
from services.stack.failure import Failure
from services.stack.settings import Settings, load
from services.stack.supervision.guard import end_with_parent
from services.stack.variables import passed

Tokens = list[int]
PROBLEMS = Path(__file__).with_name("problems.yaml")
TOKENS = 96
TOGETHER = 5
ROUNDS = ("one after the other", "again, from the prefix cache", f"{TOGETHER} at once")
# Seconds for an engine to load, and for an answer.
LOADING, ANSWER = 1800.0, 600.0


@dataclass(frozen=True)
class Difference:
    """How one round of answers differs from another.

    Attributes:
        answers: the number of answers that are not the same.
        first: the tokens before the first difference of each of them.
    """

    answers: int
    first: list[int]


def compare(one: list[Tokens], other: list[Tokens]) -> Difference:
    """Compare answers token by token."""
    first = []
    for left, right in zip(one, other, strict=True):
        if left != right:
            same = (n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
            first.append(next(same, min(len(left), len(right))))
    return Difference(len(first), first)


def verdict(without: list[list[Tokens]], with_: list[list[Tokens]]) -> tuple[bool, int, list[Difference]]:
    """Whether the option changes no more answers than chance does.

    Args:
        without: the rounds of the engine without the option.
        with_: the same rounds with it.

    Returns:
        Whether it is lossless; the answers that differ between identical runs; the difference of each round.
    """
    noise = max(compare(without[0], again).answers for again in without[1:])
    differences = [compare(a, b) for a, b in zip(without, with_, strict=True)]
    return all(difference.answers <= noise for difference in differences), noise, differences


def lossless(engine: str | None, profile: str | None, option: str | None) -> int:
    """Compare an engine of a profile with and without an option; returns 1 if answers change, else 0.

    Args:
        engine: a file of the profile, without `.yaml`; by default the first model's.
        profile: a folder under config/engines; by default that of the settings.
        option: `NAME=VALUE`, as in the file; by default its speculative-config.

    Raises:
        Failure: there is nothing to compare, or an engine does not start.
    """
    settings = load().with_profile(profile)
    engine = engine or next(iter(settings.kinds))
    file = settings.profile / f"{engine}.yaml"
    if not file.is_file():
        raise Failure(f"{file} does not exist; name an engine of the profile with --model.")
    values: dict[str, Any] = yaml.safe_load(file.read_text())
    with_ = values | _option(option, values, file)
    name = option.partition("=")[0] if option else "speculative-config"
    without = {key: value for key, value in values.items() if key not in (name, "speculative-config")}
    prepare_engine(settings)
    rounds = []
    for what, configuration in ((f"without {name}", without), (f"with {name}", with_)):
        console.print(f"{engine} of {settings.profile.name} {what}: loading", markup=False)
        with serving(settings, configuration) as url:
            rounds.append(ask(url, configuration))
    same, noise, differences = verdict(*rounds)
    table = Table("answers", "changed", "first after tokens", box=None, header_style="bold")
    for round_, difference in zip(ROUNDS, differences, strict=True):
        table.add_row(round_, f"{difference.answers} of {len(rounds[0][0])}", _listed(difference.first))
    console.print(table)
    console.print(f"Identical runs without {name} change up to {noise}.", markup=False)
    if same:
        console.print(f"Lossless: {name} changes no more answers than that.", markup=False)
        return 0
    console.print(f"Not lossless: {name} changes answers; do not serve with it.", markup=False)
    return 1


def _option(option: str | None, values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    if option is None:
        if "speculative-config" not in values:
            raise Failure(f"{file.name} has no speculative-config; name an option with --option NAME=VALUE.")
        return {}
    name, equals, text = option.partition("=")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not name or not equals or value is None:
        raise Failure(f"--option {option} is not NAME=VALUE, such as enable-prefix-caching=true.")
    if values.get(name) == value:
        raise Failure(f"{file.name} has {name} with this value already; there is nothing to compare.")
    return {name: value}


def ask(url: str, values: Mapping[str, Any]) -> list[list[Tokens]]:
    """The answers of each round, as token ids."""
    model = values["served-model-name"][0]
    groups: dict[str, list[dict[str, str]]] = yaml.safe_load(PROBLEMS.read_text())["code"]
    # A beginning that all share, longer than a block of the cache where the context allows it.
    shared = PROBLEMS.read_text() * 3
    prompts = [
        f"{shared[: 2 * int(values['max-model-len'])][:9000]}\n\n# {problem['ask']}\n"
        for group in groups.values()
        for problem in group
    ]
    with httpx.Client(base_url=url, timeout=ANSWER) as client:

        def answer(prompt: str) -> Tokens:
            body = {
                "model": model,
                "prompt": prompt,
                "temperature": 0,
                "max_tokens": TOKENS,
                "return_token_ids": True,
            }
            response = client.post("/v1/completions", json=body)
            if response.is_error:
                raise Failure(f"the engine refuses: {response.text[:300]}")
            tokens: Tokens = response.json()["choices"][0]["token_ids"]
            return tokens

        rounds = []
        for what, threads in zip(ROUNDS, (1, 1, TOGETHER), strict=True):
            console.print(f"  {len(prompts)} answers {what}")
            with ThreadPoolExecutor(threads) as pool:
                rounds.append(list(pool.map(answer, prompts)))
    return rounds


@contextlib.contextmanager
def serving(settings: Settings, values: Mapping[str, Any]) -> Iterator[str]:
    """An engine of the profile with this configuration, on a free port; yields its URL.

    Raises:
        Failure: it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="duoserve-") as name:
        folder = Path(name)
        (folder / "engine.yaml").write_text(yaml.safe_dump(dict(values)))
        environment = passed() | {"HF_HOME": str(models.HOME), "TMPDIR": name} | settings.engine_variables
        if settings.engine == "cpu":
            environment |= precision.environment_of(settings)
            command = [str(BY_NAME["engine"].python), "-m", "services.engine"]
        else:
            command = [str(BY_NAME["engine-cuda"].folder / "bin" / "vllm"), "serve"]
        command += ["--config", str(folder / "engine.yaml"), "--host", "127.0.0.1", "--port", str(port)]
        log = folder / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(signal.SIGTERM),
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url, log)
            yield url
        finally:
            # Its whole session: vLLM has processes beside the one that was started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + LOADING
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health").is_success:
                return
        time.sleep(0.5)
    lines = [line for line in log.read_text(errors="replace").splitlines() if "Error" in line]
    last = lines[-1] if lines else "it said nothing"
    raise Failure(f"the engine does not start: {last[-300:]}")


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
