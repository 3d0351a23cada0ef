"""From a command line, or a call from Python, to a finished run.

A command's config is composed by Hydra, checked, and performed; what goes wrong ends in one line. Nothing here imports
torch, so that `--help` and errors of composing and checking come at once.
"""

import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zsteer.app.composition import CONFIGS, compose, in_full, own_hydra
from zsteer.files import atomic_write, is_main_process
from zsteer.status import USER_ERRORS, Call, describe, exit_code, recorded, refuse_completed, terminate
from zsteer.sweeps.hydra_internals import VERSION_BASE, word_of
from zsteer.sweeps.launching import objective_of


@runtime_checkable
class Result(Protocol):
    """What a command gives."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What `metrics.json` holds."""
        ...

    def report(self, folder: Path) -> str:
        """What the command prints at its end, having written into `folder`."""
        ...


Check = Callable[[DictConfig], None]
Perform = Callable[[DictConfig, Path | None], Result]


@dataclass(frozen=True)
class Command:
    """One command: called without words it runs as the command line says, as `scripts/NAME.py` and `zsteer-NAME` do.

    Args:
        check: raises what is wrong with a config, without loading torch.
        perform: does the work of a checked config, and writes files if it is given a folder.
        successor: the command that some words have moved to, and its own words for them.
    """

    name: str
    check: Check
    perform: Perform
    successor: Callable[[list[str]], "tuple[Command, list[str]] | None"] = lambda words: None

    def __call__(self) -> None:
        """Run as the command line says; one line per failure that a user can put right, and exit code 1.

        Ended by Ctrl-C or SIGTERM, it says so, and its exit code is 130 or 143.

        A sweep is summarized whatever became of its jobs. `HYDRA_FULL_ERROR=1` shows tracebacks.
        """
        if moved := self.successor(sys.argv[1:]):
            command, words = moved
            print(f"note: this is {command.name} now: scripts/{command.name}.py", file=sys.stderr)
            # A sweep's processes run the other command's script; the run's folder stays where it was looked for.
            script = Path(sys.argv[0])
            sys.argv[0] = str(script.with_name(script.name.replace(self.name, command.name)))
            sys.argv[1:] = [f"hydra.job.name={self.name}", *words]
            return command()
        ignore_lightnings_warnings()
        handler = signal.signal(signal.SIGTERM, terminate)
        call = Call()
        task = hydra.main(version_base=VERSION_BASE, config_path=str(CONFIGS), config_name=self.name)(Task(self, call))
        verbose = os.environ.get("HYDRA_FULL_ERROR") == "1"
        try:
            sys.argv[1:] = in_full(self.name, resumable(sys.argv[1:], call))
            with env_override({"HYDRA_FULL_ERROR": "1"}):  # Hydra then leaves its errors to us
                try:
                    task()
                finally:
                    summarize_sweep(call)
            if call.failures:  # which a launcher has not raised, so that its other jobs still ran
                raise ValueError("; ".join(call.failures))
        except (*USER_ERRORS, FolderTaken) as error:
            if verbose:
                raise
            for line in call.failures or [describe(named_folder(error, call))]:
                print(f"error: {line}", file=sys.stderr)
            sys.exit(exit_code(error))
        finally:
            if handler is not None:  # one that was not set from Python
                signal.signal(signal.SIGTERM, handler)

    def from_python(
        self,
        words: Sequence[str],
        settings: Mapping[str, Any],
        config_dir: str | Path | None,
        folder: str | Path | None,
    ) -> Any:
        """Run for a caller in Python, with the words of the command line and settings by name; give the result.

        The caller's Hydra, random numbers, environment and warning filters are left as they were.

        Raises:
            ValueError, FileNotFoundError: a setting is wrong; the message says which.
        """
        words = [*words, *(word_of(key, value) for key, value in settings.items())]
        if moved := self.successor(words):
            command, words = moved
            return command.from_python(words, {}, config_dir, folder)
        if config_dir is not None and not Path(config_dir).is_dir():
            raise FileNotFoundError(f"config_dir={config_dir}: no such folder")
        with _environment_kept(), _errors_in_a_line(), own_hydra(config_dir):
            refuse_hydras_words(self.name, words)
            cfg = compose(self.name, words, inside=True)
            self.check(cfg)
            with _torch_state_kept():
                if folder is None:
                    return self.perform(cfg, None)
                folder = Path(folder)
                refuse_completed(folder, "folder")
                try:
                    write_config(folder, cfg, words)
                except OSError as error:
                    raise ValueError(f"folder={folder} cannot be written ({error.strerror}); name another") from error
                with recorded(folder):
                    return self.perform(cfg, folder)


def refuse_hydras_words(script: str, words: Sequence[str]) -> None:
    """
    Raises:
        ValueError: words about Hydra's own folders and sweeps, of which a call from Python makes no use.
    """
    for word in words:
        if re.match(r"[+~]*hydra[./]", word):
            raise ValueError(f"{word} has no meaning in a call from Python; name a run's folder by folder=")
    if hydra.compose(script, in_full(script, words), return_hydra_config=True).hydra.mode == RunMode.MULTIRUN:
        raise ValueError("experiment=: this preset is a sweep, for the command line; call once for each of its jobs")


@dataclass
class Task:
    """A command as Hydra and its launchers call it: one job, its folder's `status.json` saying how it stands."""

    command: Command
    call: Call

    def __post_init__(self) -> None:
        # Hydra asks a function for these.
        self.__name__, self.__module__, self.__doc__ = self.command.name, __name__, self.command.perform.__doc__

    def __call__(self, cfg: DictConfig) -> Any:
        hydra_cfg = HydraConfig.get()
        folder = Path(hydra_cfg.runtime.output_dir)
        self.call.started = True
        swept = hydra_cfg.mode == RunMode.MULTIRUN
        if swept:
            self.call.sweep = Path(hydra_cfg.sweep.dir)
        try:
            with recorded(folder):
                self.refuse_sweep_words(cfg, swept)
                self.command.check(cfg)
                result = self.command.perform(cfg, folder)
                if is_main_process():
                    print(result.report(folder))
                return objective_of(result.metrics, cfg)
        except BaseException as error:
            self.call.failures.append(f"{folder.name if swept else ''}{': ' if swept else ''}{describe(error)}")
            raise

    def refuse_sweep_words(self, cfg: DictConfig, swept: bool) -> None:
        """
        Raises:
            ValueError: words of a sweep in a single run, or several devices in a sweep that runs in this process.
        """
        if self.call.resumed and not swept:
            raise ValueError("resume= goes on with a sweep; add -m and the words that the sweep was started with")
        devices = OmegaConf.select(cfg, "trainer.devices", default=1)
        if swept and devices not in (1, "1"):
            # Their processes would run the whole sweep again, and train with one another's jobs.
            raise ValueError(
                f"trainer.devices={devices} must be 1 in a sweep by hydra/launcher=basic; choose processes"
            )


def resumable(words: Sequence[str], call: Call) -> list[str]:
    """The command's words with `resume=DIR`, which goes on with the sweep in DIR, turned into its folder.

    Raises:
        ValueError: DIR holds no sweep.
    """
    resumed = [word.partition("=")[2] for word in words if word.startswith("resume=")]
    if not resumed:
        return list(words)
    folder = resumed[-1].strip("'\"")  # quoted as Hydra wants it, or not
    if not (Path(folder) / "multirun.yaml").is_file():
        raise ValueError(f"resume={folder} must be a sweep's folder; it has no multirun.yaml")
    call.resumed = True
    rest = [word for word in words if not re.match(r"resume=|\+*hydra\.sweep\.dir=", word)]
    return [*rest, word_of("hydra.sweep.dir", folder)]


class FolderTaken(BaseException):
    """A run's folder holds a completed run. Of what is an Exception, Hydra would make a warning."""


class RefuseCompleted(Callback):
    """Looks at a run's folder, whoever named it, before Hydra writes this run's config over a completed one's."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """
        Raises:
            FolderTaken: it holds one.
        """
        try:
            refuse_completed(Path(config.hydra.run.dir), "hydra.run.dir")
        except ValueError as error:
            raise FolderTaken(str(error)) from None


def named_folder(error: BaseException, call: Call) -> BaseException:
    """The error, or one that names the key of the folder where it came from a folder that cannot be written."""
    if isinstance(error, OSError) and not isinstance(error, HydraException) and not call.started:
        key = "hydra.sweep.dir" if call.sweep else "hydra.run.dir"
        return ValueError(f"{key}: cannot write {error.filename} ({error.strerror}); name another folder")
    return error


def summarize_sweep(call: Call) -> None:
    """At the end of a sweep its table, whatever became of its jobs; their failures, where the call has none yet."""
    if call.sweep is None or not is_main_process() or not any(call.sweep.glob("*/status.json")):
        return
    from zsteer.sweeps import summary  # which draws: a single run need not wait for that

    print(summary.summarize(call.sweep).report(call.sweep))
    call.failures = call.failures or summary.failures(call.sweep)


def write_config(folder: Path, cfg: DictConfig, words: Sequence[str]) -> None:
    """Write the config and the words of a run, where Hydra would."""
    for name, content in {"config": cfg, "overrides": OmegaConf.create(list(words))}.items():
        with atomic_write(folder / ".hydra" / f"{name}.yaml") as temporary:
            temporary.write_text(OmegaConf.to_yaml(content))


def ignore_lightnings_warnings() -> None:
    """Ignore what Lightning itself makes torch 2.14 and later warn of."""
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Leave environment variables and warning filters as they were; Lightning sets some of both."""
    before = dict(os.environ)
    try:
        with warnings.catch_warnings():
            ignore_lightnings_warnings()
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _errors_in_a_line() -> Iterator[None]:
    """
    Raises:
        ValueError: instead of Hydra's and YAML's own errors, with what they say in a line.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ValueError(describe(error)) from error


@contextmanager
def _torch_state_kept() -> Iterator[None]:
    """Leave torch's and NumPy's random numbers as they were, and compute gradients even where the caller does not."""
    import numpy as np
    import torch

    numbers, devices = np.random.get_state(), range(torch.cuda.device_count())
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        np.random.set_state(numbers)
