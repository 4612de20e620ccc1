"""The tasks of `./run`, in the order in which they are listed.

The command line is built from this table. A test compares it with pixi.toml and with the README.
"""

import math
import pkgutil
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass

from services.stack.environments import BY_NAME


@dataclass(frozen=True)
class Task:
    """One task of `./run`.

    Attributes:
        name: what follows `./run`.
        help: its line in `./run -h`, in pixi.toml and in the README.
        function: does it, as `module:function` of this package. Imported when it is needed, because some
            modules take long to import.
        arguments: adds the task's arguments to its parser.
        forwards: everything after the name goes unparsed to the function, as the list `arguments`.
    """

    name: str
    help: str
    function: str
    arguments: Callable[[ArgumentParser], None] | None = None
    forwards: bool = False

    def load(self) -> Callable[..., int | None]:
        """The task's function: takes the arguments by name, and returns the exit status or None for 0."""
        function: Callable[..., int | None] = pkgutil.resolve_name(f"services.stack.{self.function}")
        return function


def _up(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--engine", choices=["cpu", "cuda"], help="kind of machine (default: that of PROFILE)"
    )
    parser.add_argument("--detach", action="store_true", help="return as soon as everything is ready")


def _status(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def _logs(parser: ArgumentParser) -> None:
    parser.add_argument("service", nargs="?", help="coder, general, router, ui ... (default: all)")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new lines")


def _setup(parser: ArgumentParser) -> None:
    parser.add_argument("environment", nargs="*", choices=[*BY_NAME, []], help="only these environments")


def _profile(parser: ArgumentParser) -> None:
    parser.add_argument("--profile", help="a folder under config/engines (default: PROFILE)")


def _gigabytes(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < math.inf:
        raise ArgumentTypeError(f"{text} is not a number above 0; give the memory in GB, for example 96")
    return size


def _plan(parser: ArgumentParser) -> None:
    _profile(parser)
    parser.add_argument(
        "--vram",
        type=_gigabytes,
        metavar="GB",
        help="memory to plan for (default: that of this machine's GPU)",
    )
    parser.add_argument(
        "--write", action="store_true", help="write the largest split that fits to the profile"
    )


def _models(parser: ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _profile(verbs.add_parser("fetch", help="download what is missing, and verify every file"))


def _ide(parser: ArgumentParser) -> None:
    parser.add_argument(
        "tool", nargs="?", metavar="TOOL", help="name of the tool; without it, all are listed"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--write", action="store_true", help="merge the configuration into the tool's own file"
    )
    action.add_argument("--test", action="store_true", help="send the requests that the tool sends")
    parser.add_argument("--url", help="address of a service elsewhere; its key is read from DUOSERVE_API_KEY")


def _install_service(parser: ArgumentParser) -> None:
    parser.add_argument("--system", action="store_true", help="for the whole machine, at boot; needs root")
    parser.add_argument("--uninstall", action="store_true", help="stop the service and remove its unit")


def _eval(parser: ArgumentParser) -> None:
    parser.add_argument(
        "suite",
        choices=["fim", "code", "lossless", "votes"],
        help="fill in the middle; write functions; whether speculation leaves answers as they are; or what "
        "people preferred in the chat app",
    )
    parser.add_argument("--model", help="name of the model, or engine for lossless (default: the first)")
    parser.add_argument("--profile", help="lossless: a folder under config/engines (default: PROFILE)")
    parser.add_argument(
        "--option",
        metavar="NAME=VALUE",
        help="lossless: vLLM's option to check (default: speculative-config)",
    )
    parser.add_argument("--file", help="votes: what the chat app has exported")


def _docs(parser: ArgumentParser) -> None:
    parser.add_argument("--serve", action="store_true", help="serve it, and rebuild it when a file is saved")


def _lock(parser: ArgumentParser) -> None:
    parser.add_argument("--upgrade", action="store_true", help="move to the newest versions allowed")


TASKS = {
    task.name: task
    for task in (
        # To use the service.
        Task(
            "up",
            "prepare what is missing, start everything, show progress until ready",
            "commands.up:up",
            _up,
        ),
        Task(
            "status",
            "state, process and port of every service, and whether each model is loading or ready",
            "commands.status:status",
            _status,
        ),
        Task("logs", "show the end of the logs", "commands.logs:logs", _logs),
        Task("down", "stop everything", "commands.down:down"),
        Task("doctor", "check this machine and the installation", "commands.doctor:doctor"),
        Task("setup", "prepare everything without starting it", "commands.setup:setup", _setup),
        Task(
            "plan",
            "check that the models fit into GPU memory, and show the split",
            "commands.plan:plan",
            _plan,
        ),
        Task(
            "models",
            "download the pinned models; resumes, and verifies the hash of every file",
            "commands.fetch:fetch_models",
            _models,
        ),
        Task(
            "usage",
            "requests, tokens, waiting and refusals by person, model, day or tool",
            "commands.rooms:usage",
            forwards=True,
        ),
        Task(
            "keys",
            "add, list, revoke or rotate the keys of people and tools",
            "commands.rooms:keys",
            forwards=True,
        ),
        Task(
            "ide",
            "print or merge the configuration of an editor or agent, or test it",
            "ide.command:ide",
            _ide,
        ),
        Task(
            "install-service",
            "let systemd start the service at login or at boot",
            "commands.systemd:install_service",
            _install_service,
        ),
        # To work on it.
        Task(
            "check", "lint, formatting, types and the fast tests, in under a minute", "commands.check:check"
        ),
        Task("fmt", "format the code and apply safe lint fixes", "commands.check:fmt"),
        Task("test", "every test that needs neither a GPU nor Docker", "commands.rooms:test", forwards=True),
        Task(
            "test-clients",
            "run the real coding agents against the router",
            "commands.rooms:test_clients",
            forwards=True,
        ),
        Task(
            "test-hostile",
            "send the real engines what could end them, for HOSTILE_SECONDS (600)",
            "commands.rooms:test_hostile",
            forwards=True,
        ),
        Task(
            "test-soak",
            "run the service under load for SOAK_SECONDS (3600), with a fault every SOAK_EVERY (240)",
            "commands.rooms:test_soak",
            forwards=True,
        ),
        Task(
            "test-compose",
            "run the containers on a real Docker engine; takes minutes and 15 GB of disk space",
            "commands.rooms:test_compose",
            forwards=True,
        ),
        Task(
            "loadtest",
            "load the running service and compare it with its promises",
            "commands.rooms:loadtest",
            forwards=True,
        ),
        Task("bench", "run the whole benchmark and write a report", "commands.rooms:bench", forwards=True),
        Task(
            "eval",
            "the share of small coding problems a model solves, by running its solutions",
            "evaluation.command:evaluate",
            _eval,
        ),
        Task(
            "ui",
            "run only the chat app; --dev reloads it when a file is saved",
            "commands.rooms:ui",
            forwards=True,
        ),
        Task("docs", "build the documentation site, or preview it", "commands.rooms:docs", _docs),
        Task("lock", "write the lock files from the requirements", "environments:lock", _lock),
        Task("pin-images", "pin third-party container images to their digests", "commands.pin_images:pin"),
    )
}
