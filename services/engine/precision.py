"""Chooses the precision of the embedded model by measuring: which one is quickest depends on the CPU.

Run in the engine environment: `python -m services.engine.precision` prepares the weights, measures every
variant on this CPU where that has not been done, and keeps the figures and the choice in
data/cache/precision.json. They hold until the CPU, its flags, the number of threads, the C++ compiler, vLLM
or torch change. Where there is a compiler, the quickest is compiled and measured once more.
`CPU_PRECISION` names a variant to serve whatever its figures. `--measure [NAME ...]` measures anew, prints
the figures as JSON and keeps nothing.

A variant is measured in vLLM's own engine with the model as it is served, without HTTP: a step of one request
and of five, and the reading of a prompt. What else the machine does disturbs that little: all engines are in
one process and take turns, time is that of the CPU, and the shortest of each is kept.
"""

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any

import yaml

from services.engine import embedded_model
from services.engine.embedded_model import ROOT

RECORD = ROOT / "data" / "cache" / "precision.json"
PROFILE = ROOT / "config" / "engines" / "cpu" / "coder.yaml"
SETTING = "CPU_PRECISION"
BAD_SETTING = 78  # exit status (EX_CONFIG of sysexits.h)
# A variant must be quicker than one before it in the table by more than the noise to be taken.
NOISE = 1.05
ROUNDS, STEPS, PROMPT = 4, 8, 256
# Not measured further after a round: on a slow CPU, one reads for 20 s what another reads in 3.
HOPELESS = 2
# Without a word for so many seconds, a process that measures hangs: a step of it takes minutes on a slow CPU.
STALLED = 1800
# What a process that measures needs of config/engines/cpu/engine.env; the engines are in it, and say nothing.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_AOT_COMPILE": "0",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
# Variables that change which kernels run, where somebody sets them.
KERNELS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")


class UnknownPrecisionError(ValueError):
    """CPU_PRECISION names no variant."""


class MeasuringError(RuntimeError):
    """The variants could not be measured; the message is the last that vLLM said."""


@dataclass(frozen=True)
class Variant:
    """One way to serve the model: its weights, a key of embedded_model.SHA256, the settings of vLLM that
    differ from config/engines/cpu, and whether vLLM compiles it.
    """

    name: str
    weights: str
    settings: dict[str, str]
    compiled: bool = False

    @property
    def model(self) -> str:
        """The folder of the weights, relative to the checkout."""
        return str(embedded_model.folder(self.weights))

    @property
    def arguments(self) -> list[str]:
        """What to add to `vllm serve --config FILE`; the command line overrides the file."""
        settings = [part for name, value in self.settings.items() for part in (f"--{name}", value)]
        return [*settings, "--no-enforce-eager"] if self.compiled else settings

    def arguments_for(self, values: Mapping[str, Any]) -> list[str]:
        """As `arguments`, for an engine's configuration with another model: the type, for as many tokens."""
        arguments = ["--dtype", self.settings["dtype"]]
        if self.settings["dtype"] == "float32":
            arguments += ["--kv-cache-memory-bytes", _doubled(str(values["kv-cache-memory-bytes"]))]
        return arguments


def _doubled(size: str) -> str:
    """Twice a size as vLLM writes it, such as 768M."""
    number = size.rstrip("kKmMgGtT")
    return f"{2 * int(number)}{size[len(number) :]}"


# A token of context takes twice the memory in float32: twice the size, so that as many fit.
_FLOAT32 = {"dtype": "float32", "kv-cache-memory-bytes": "1536M"}
# By preference. int8: gate and up projections in 8 bits, their inputs as well. docs/benchmarks/cpu-tuning.md
# has the figures of these and of those that never were the quickest.
PREPARED = (
    Variant("int8-bfloat16", "w8a8", {"dtype": "bfloat16"}),
    Variant("bfloat16", "bf16", {"dtype": "bfloat16"}),
    Variant("int8-float32", "w8a8", _FLOAT32),
    Variant("float32", "bf16", _FLOAT32),
)
_SUFFIX = "-compiled"
_COMPILED = [replace(each, name=each.name + _SUFFIX, compiled=True) for each in PREPARED]
VARIANTS = {variant.name: variant for variant in (*PREPARED, *_COMPILED)}


@dataclass
class Figures:
    """What an engine does on its share of this CPU: a step of one and of five requests, ms; tokens of a
    prompt that it reads in a second.
    """

    step_1_ms: float
    step_5_ms: float
    prompt_tokens_per_s: float

    @property
    def cost(self) -> float:
        """The geometric mean of the three times; only its ratio to another's means something."""
        return math.cbrt(self.step_1_ms * self.step_5_ms / self.prompt_tokens_per_s)

    def better(self, other: "Figures") -> "Figures":
        """The better of each of the figures."""
        return Figures(
            min(self.step_1_ms, other.step_1_ms),
            min(self.step_5_ms, other.step_5_ms),
            max(self.prompt_tokens_per_s, other.prompt_tokens_per_s),
        )

    def __str__(self) -> str:
        """The figures in words."""
        return (
            f"a step {self.step_1_ms:.0f} ms, of five requests {self.step_5_ms:.0f} ms; "
            f"reads {self.prompt_tokens_per_s:.0f} tokens/s"
        )


def quickest(figures: dict[str, Figures]) -> str:
    """The first variant of the table that is as quick as the best, but for noise."""
    limit = min(each.cost for each in figures.values()) * NOISE
    return next(name for name in VARIANTS if name in figures and figures[name].cost <= limit)


def choose(say: Callable[[str], None], record: Path = RECORD) -> tuple[Variant, Figures]:
    """The variant to serve on this machine, and what it does here; measures where that is not known yet.

    Raises:
        UnknownPrecisionError: CPU_PRECISION names none.
        MeasuringError: vLLM does not run here.
        OSError: the record cannot be written.
    """
    setting = os.environ.get(SETTING) or "auto"
    if setting not in ("auto", *VARIANTS):
        raise UnknownPrecisionError(f"{SETTING}={setting} is none of: auto, {', '.join(VARIANTS)}.")
    if setting != "auto" and VARIANTS[setting].compiled and not compiler():
        raise MeasuringError(f"{SETTING}={setting} needs a C++ compiler, such as g++.")
    kept = known(record)
    if not kept.figures:
        _remove_compiled_for_others(record)

    def measured(names: list[str]) -> None:
        """Measure these where that was not done yet, and keep the figures."""
        if not set(names) <= set(kept.figures):
            say(f"Measuring {', '.join(names)} on this CPU, to serve the quickest (once, a minute or two)")
            kept.figures.update(measure(names, say))
            kept.write(record)

    if setting != "auto":
        measured([setting])
        return VARIANTS[setting], kept.figures[setting]
    measured([each.name for each in PREPARED])
    best = quickest(kept.figures)
    compiled = best + _SUFFIX
    if compiler() and compiled in VARIANTS and compiled not in kept.failed:
        try:
            # First, as an engine has it: compiled beside another, it has names that engines do not look for.
            measured([compiled, best])
        except MeasuringError as error:
            say(f"{compiler()} could not compile it, so it is served as it is: {error}")
            kept.failed[compiled] = str(error)
            kept.write(record)
        best = quickest(kept.figures)
    return VARIANTS[best], kept.figures[best]


def _remove_compiled_for_others(record: Path) -> None:
    """Remove what was compiled on another CPU."""
    own = Path(caches(record)["TORCHINDUCTOR_CACHE_DIR"])
    for folder in own.parent.glob("inductor-*"):
        if folder != own:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Record:
    """What was measured on this machine: the figures by variant, and why others could not be compiled."""

    figures: dict[str, Figures] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Replace the file `path` by this record."""
        content = {
            "machine": machine(),
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            # Of all that were measured, whatever CPU_PRECISION says.
            "quickest": quickest(self.figures),
            "figures": {name: asdict(each) for name, each in self.figures.items()},
            "failed": self.failed,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.rename(path)


def known(path: Path) -> Record:
    """The record in the file `path`, or an empty one if that was not made on a machine like this one."""
    try:
        content = json.loads(path.read_text())
        if content["machine"] != machine():
            return Record()
        figures = {name: Figures(**each) for name, each in content["figures"].items() if name in VARIANTS}
        return Record(figures, content["failed"])
    except (OSError, ValueError, KeyError, TypeError):
        return Record()


def compiler() -> str:
    """The C++ compiler that torch would use, or "" if there is none."""
    return shutil.which(os.environ.get("CXX", "g++")) or ""


def machine() -> dict[str, Any]:
    """All that the figures depend on."""
    return {
        "cpu": _processor().get("model name", ""),
        "instructions": instructions(),
        "compiler": compiler(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))),
        "memory": os.environ.get("GLIBC_TUNABLES", ""),
        "versions": {name: importlib.metadata.version(name) for name in ("vllm", "torch")},
        "weights": embedded_model.SHA256,
    }


def instructions() -> dict[str, str]:
    """What this CPU can do, and which of it programs are told to use."""
    told = {name: os.environ[name] for name in KERNELS if name in os.environ}
    return {"flags": _processor().get("flags", ""), **told}


def _processor() -> dict[str, str]:
    """The first processor in /proc/cpuinfo."""
    lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def caches(record: Path = RECORD) -> dict[str, str]:
    """Tells vLLM and torch where to keep what they find out or compile once for every engine of this machine.

    Beside the record, or beside VLLM_CACHE_ROOT where this user may not write there. Compiled code has a
    folder for each kind of CPU: torch 2.13 looks it up by the model alone, and code for AVX2, found by a CPU
    with AVX-512, writes past the end of its buffers.
    """
    folder = record.parent
    if folder.exists() and not os.access(folder, os.W_OK):
        folder = Path(os.environ.get("VLLM_CACHE_ROOT") or Path.home() / ".cache" / "vllm").parent
    kind = hashlib.sha256(json.dumps(instructions()).encode()).hexdigest()[:8]
    return {
        "VLLM_CACHE_ROOT": str(folder / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / f"inductor-{kind}"),
    }


def measure(names: Iterable[str], say: Callable[[str], None]) -> dict[str, Figures]:
    """Measure these variants, in a process of their own.

    Raises:
        MeasuringError: it did not get to the end.
    """
    command = [sys.executable, "-m", "services.engine.precision", "--in-process", *names]
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT | caches(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process:
            result = ""
            for line in _lines(process):
                if line.startswith("{"):
                    result = line
                else:
                    say(f"  {line.rstrip()}")
        if process.returncode != 0 or not result:
            errors.seek(0)
            last = [line.strip() for line in errors if line.strip()][-1:] or ["it said nothing"]
            raise MeasuringError(f"exit status {process.returncode}: {last[0][-300:]}")
    return {name: Figures(**each) for name, each in json.loads(result).items()}


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """What a process prints. It is killed when it hangs, which is a MeasuringError."""
    assert process.stdout  # noqa: S101 - a pipe was asked for
    while True:
        began = time.monotonic()
        watchdog = Timer(STALLED, process.kill)
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        if time.monotonic() - began >= STALLED:
            raise MeasuringError(f"it hung for {STALLED / 60:.0f} minutes, and was ended")
        if not line:
            return
        yield line


def _measure_in_process(names: list[str]) -> None:
    """Print progress, and last the figures as one line of JSON."""
    # vLLM and what it is made of write to both streams; only the figures are for the reader of this one.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print("importing vLLM", file=out)
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    # As it is served: what is compiled for steps of another size is compiled anew at the first start.
    step = yaml.safe_load(PROFILE.read_text())["max-num-batched-tokens"]
    engines: dict[str, Any] = {}
    for name in names:
        variant = VARIANTS[name]
        print(f"{'compiling' if variant.compiled else 'loading'} {name}", file=out)
        engines[name] = LLMEngine.from_engine_args(
            EngineArgs(
                model=variant.model,
                dtype=variant.settings["dtype"],
                max_model_len=2 * PROMPT,
                max_num_seqs=8,
                max_num_batched_tokens=step,
                kv_cache_memory_bytes=64 << 20,
                enable_prefix_caching=False,
                enforce_eager=not variant.compiled,
                disable_log_stats=True,
            )
        )
    words = random.Random(1)  # noqa: S311 - not for secrets
    figures: dict[str, Figures] = {}
    for turn in range(1, ROUNDS + 1):
        best = min((each.cost for each in figures.values()), default=math.inf)
        for name, engine in engines.items():
            if turn > 1 and figures[name].cost > HOPELESS * best:
                continue
            one = min(_times(engine, words, 1, 16, STEPS)[1:]) * 1000
            five = min(_times(engine, words, 5, 16, STEPS)[1:]) * 1000
            reading = PROMPT / sum(_times(engine, words, 1, PROMPT, 1))
            now = Figures(one, five, reading)
            figures[name] = now.better(figures[name]) if name in figures else now
        print(f"round {turn} of {ROUNDS}", file=out)
    for name, each in figures.items():
        print(f"{name}: {each}", file=out)
    print(json.dumps({name: asdict(each) for name, each in figures.items()}), file=out)


def _times(engine: Any, words: random.Random, requests: int, prompt: int, tokens: int) -> list[float]:
    """The seconds of each step: the first reads so many prompts, the others answer with so many tokens."""
    from vllm import SamplingParams

    parameters = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    for number in range(requests):
        tokens_of_prompt = words.choices(range(1000, 40000), k=prompt)
        engine.add_request(str(number), {"prompt_token_ids": tokens_of_prompt}, parameters)
    times: list[float] = []
    while engine.has_unfinished_requests():
        # Of this thread, in which the engine runs and which works with, or waits busily for, those of OpenMP.
        began = time.thread_time()
        engine.step()
        times.append(time.thread_time() - began)
    return times


def main() -> int:
    """Prepare the weights and choose; returns the exit status."""
    parser = argparse.ArgumentParser(description="Choose the embedded model's precision by measuring.")
    parser.add_argument(
        "--measure",
        nargs="*",
        choices=VARIANTS,
        metavar="NAME",
        help="print new figures as JSON, keep nothing; default: all that need no compiler",
    )
    parser.add_argument("--in-process", nargs="+", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        _measure_in_process(arguments.in_process)
        return 0
    if (status := embedded_model.main()) != 0:
        return status
    try:
        if arguments.measure is not None:
            names = arguments.measure or [each.name for each in PREPARED]
            figures = measure(names, lambda line: print(line, file=sys.stderr, flush=True))
            print(json.dumps({name: asdict(each) for name, each in figures.items()}, indent=1))
        else:
            choose(lambda line: print(line, flush=True))
    except UnknownPrecisionError as error:
        print(f"duoserve: {error}", file=sys.stderr)
        return BAD_SETTING
    except (MeasuringError, OSError) as error:
        print(f"duoserve: cannot measure this CPU: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
