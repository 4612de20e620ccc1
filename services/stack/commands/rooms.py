"""The tasks that run in the environment of another room, which parses their arguments itself."""

import argparse
import subprocess

from services.stack import environments, models, variables
from services.stack.commands.setup import prepare
from services.stack.environments import BY_NAME, ROOT
from services.stack.settings import Settings, load

# One process for the tests with real engines, two for the others, of which many only wait.
_ALL_TESTS = ["-n", "3", "--no-loadscope-reorder", "--durations", "15"]


def test(arguments: list[str]) -> int:
    """Run pytest, for all tests unless arguments name some. Prepares the service, which some tests start."""
    environments.ensure("dev", "loadtests")
    prepare(load())
    return _pytest(arguments or _ALL_TESTS)


def test_clients(arguments: list[str]) -> int:
    """Run the tests of the coding agents, which install them (2 GB)."""
    environments.ensure("dev", "aider")
    return _pytest(["tests/clients/test_agents.py", "-m", "slow", *arguments])


def test_hostile(arguments: list[str]) -> int:
    """Run the tests of hostile requests, and show what was answered."""
    environments.ensure("dev")
    prepare(load())
    return _pytest(["tests/hostile", "-m", "slow or not slow", "-s", *arguments])


def test_soak(arguments: list[str]) -> int:
    """Run the service for an hour with faults, and show how it goes."""
    environments.ensure("dev")
    prepare(load())
    return _pytest(["tests/soak", "-m", "slow", "-s", *arguments])


def test_compose(arguments: list[str]) -> int:
    """Run the tests of the containers, and show their output as it comes."""
    environments.ensure("dev")
    return _pytest(["tests/compose", "-m", "slow", "-s", *arguments])


def loadtest(arguments: list[str]) -> int:
    """Run a suite; the exit status is 1 when a promise is missed, 2 without a verdict."""
    return _room("loadtests", ["loadtests", "run", *arguments])


def bench(arguments: list[str]) -> int:
    """Run the benchmark, which writes reports/TIME/report.html; the exit status is that of `loadtest`."""
    # Downloaded first, where progress is seen: the benchmark starts the service without showing its output.
    options = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    options.add_argument("--profile")
    options.add_argument("--random-weights", action="store_true")
    asked, _ = options.parse_known_args(arguments)
    settings = load().with_profile(asked.profile)
    if asked.random_weights:
        settings = Settings(settings.home, {**settings.variables, "LOAD_FORMAT": "dummy"})
    if models.absent(settings):
        from services.stack.commands.fetch import fetch  # takes half a second

        fetch(settings)
    return _room("loadtests", ["loadtests", "bench", *arguments])


def ui(arguments: list[str]) -> int:
    """Run the chat app in the foreground."""
    return _room("ui", ["ui", *arguments])


def usage(arguments: list[str]) -> int:
    """Print what people and tools used, from the request log of this machine."""
    return _room("router", ["router.show_usage", *arguments])


def keys(arguments: list[str]) -> int:
    """Add, list, revoke or rotate keys; the exit status is 1 if nothing was changed."""
    return _room("router", ["router.manage_keys", *arguments])


def docs(serve: bool) -> int:
    """Build the documentation into site/, where a dead link is an error, or serve it."""
    environments.ensure("docs")
    return _module("docs", ["mkdocs", "serve"] if serve else ["mkdocs", "build", "--strict"])


def _pytest(arguments: list[str]) -> int:
    # Without the settings: tests have their own, and must not get the key.
    return _module("dev", ["pytest", *arguments])


def _room(environment: str, command: list[str]) -> int:
    """Run a room's module in its environment, with the settings as environment variables."""
    environments.ensure(environment)
    settings = load()
    return _module(
        environment, command, variables.passed() | settings.common | {"DUOSERVE_HOME": str(settings.home)}
    )


def _module(environment: str, command: list[str], variables: dict[str, str] | None = None) -> int:
    """Run a module with these variables, or with all of this process."""
    python = str(BY_NAME[environment].python)
    try:
        return subprocess.run([python, "-m", *command], cwd=ROOT, env=variables).returncode
    except KeyboardInterrupt:
        return 130
