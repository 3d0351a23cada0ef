"""From a command line, or a call from Python, to a finished run.

A command's config is composed by Hydra, checked, and performed; what goes wrong ends in one line. Nothing here imports
torch, so that `--help` and errors of composing and checking come at once.
"""

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

import zsteer
from zsteer.app.caller import environment_kept, errors_in_a_line, ignore_lightnings_warnings, torch_state_kept
from zsteer.app.checks import without_folder
from zsteer.app.completion import complete_attributes
from zsteer.app.composition import CONFIGS, in_full, naming_unreadable, own_hydra
from zsteer.app.folders import TAKEN, FolderTaken, discard_unused, named_folder, write_config
from zsteer.app.handles import put_files
from zsteer.app.process import end_with_parent, unfailing_streams
from zsteer.app.provenance import UNRECORDED, data_noted, provenance_of
from zsteer.files import LAST_CHECKPOINT, is_main_process
from zsteer.locks import in_use
from zsteer.status import USER_ERRORS, Call, describe, exit_code, recorded, refuse_completed, terminate
from zsteer.sweeps.hydra_internals import VERSION_BASE, composed_once, own_configs, word_of
from zsteer.sweeps.jobs import state_of
from zsteer.sweeps.launching import kept_objective, objective_of


@runtime_checkable
class Outcome(Protocol):
    """What a command gives."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What `metrics.json` holds."""
        ...

    def report(self, folder: Path) -> str:
        """What the command prints at its end, having written into `folder`."""
        ...


Check = Callable[[DictConfig], None]
Perform = Callable[..., Outcome]  # of a config, a folder or None, and perhaps objects by name


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

    @unfailing_streams()
    def __call__(self) -> None:
        """Run as the command line says; one line per failure that a user can put right, and exit code 1.

        Ended by Ctrl-C or SIGTERM, it says so, and its exit code is 130 or 143. A terminal that is closed ends it as
        SIGTERM does. Of the processes that end together, the first says so.

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
        if "--version" in sys.argv[1:]:
            return print(f"zsteer {zsteer.__version__}")
        if {"-sc", "--shell-completion"} & set(sys.argv):
            complete_attributes()
        ignore_lightnings_warnings()
        typed = list(sys.argv)
        end_with_parent()
        handlers = {signal.SIGTERM: signal.signal(signal.SIGTERM, terminate)}
        hang_up = getattr(signal, "SIGHUP", None)  # which Windows lacks
        if hang_up is not None and signal.getsignal(hang_up) == signal.SIG_DFL:  # and nohup ignores
            handlers[hang_up] = signal.signal(hang_up, lambda *_: signal.raise_signal(signal.SIGTERM))
        call = Call()
        task = hydra.main(version_base=VERSION_BASE, config_path=str(CONFIGS), config_name=self.name)(Task(self, call))
        verbose = os.environ.get("ZSTEER_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR")) == "1"
        try:
            sys.argv[1:] = in_full(self.name, resumable(sys.argv[1:], call))
            # Hydra then leaves its errors to us; processes that this one starts see the other, and what the user wants.
            with env_override({"HYDRA_FULL_ERROR": "1", "ZSTEER_FULL_ERROR": str(int(verbose))}):
                try:
                    with naming_unreadable(own_configs()), composed_once(sys.argv[1:]):
                        task()
                finally:
                    summarize_sweep(call)
            if call.failures:  # which a launcher has not raised, so that its other jobs still ran
                raise ValueError("; ".join(call.failures))
        except (*USER_ERRORS, FolderTaken) as error:
            if verbose:
                raise
            if isinstance(error, InterruptedError | KeyboardInterrupt) and not is_main_process():
                return  # with code 0: for any other, Lightning would kill the first process before it has ended
            for line in call.failures or [describe(named_folder(error, call))]:
                print(f"error: {line}", file=sys.stderr)
            if exit_code(error) > 1 and (word := going_on(call)) is not None:
                print(f"to go on: {command_line(typed, word)}", file=sys.stderr)
            sys.exit(exit_code(error))
        finally:
            TAKEN.close()
            for number, handler in handlers.items():
                if handler is not None:  # one that was not set from Python
                    signal.signal(number, handler)

    def ready(self, cfg: DictConfig, words: Sequence[str]) -> None:
        """Put files in place of the runs that a config names, and check it."""
        put_files(cfg, words)
        self.check(cfg)

    def provenance(
        self,
        cfg: DictConfig,
        words: Sequence[str],
        config_dir: str | Path | None = None,
        objects: Sequence[str] = (),
    ) -> dict[str, Any]:
        """What a run of a config is made of; {} where the command makes nothing that could be made again."""
        return {} if self.name in UNRECORDED else provenance_of(self.name, cfg, words, config_dir, objects)

    @unfailing_streams()
    def from_python(
        self,
        words: Sequence[str],
        settings: Mapping[str, Any],
        config_dir: str | Path | None,
        folder: str | Path | None,
        objects: Mapping[str, Any],
    ) -> Any:
        """Run for a caller in Python, with the words of the command line and settings by name; give the result.

        `objects` are what no word can say, given to `perform` by name. The caller's Hydra, random numbers,
        environment and warning filters are left as they were.

        Raises:
            ValueError, FileNotFoundError: a setting is wrong; the message says which.
        """
        words = [*words, *(word_of(key, value) for key, value in settings.items())]
        if moved := self.successor(words):
            command, words = moved
            return command.from_python(words, {}, config_dir, folder, objects)
        if config_dir is not None and not Path(config_dir).is_dir():
            raise FileNotFoundError(f"config_dir={config_dir}: no such folder")
        with environment_kept(), errors_in_a_line(), naming_unreadable(config_dir), own_hydra(config_dir):
            cfg = compose_single(self.name, words)
            self.ready(cfg, words)
            with torch_state_kept():
                if folder is None:
                    without_folder(cfg)
                    return self.perform(cfg, None, **objects)
                folder = Path(folder)
                with ExitStack() as kept:
                    try:
                        kept.enter_context(in_use(folder, "folder"))
                        refuse_completed(folder, "folder")
                        write_config(folder, cfg, words)
                    except OSError as error:
                        raise ValueError(
                            f"folder={folder} cannot be written ({error.strerror}); name another"
                        ) from error
                    tell_folder(cfg, folder)
                    provenance = self.provenance(cfg, words, config_dir, tuple(objects))
                    with recorded(folder, provenance), data_noted(provenance):
                        return self.perform(cfg, folder, **objects)


def tell_folder(cfg: DictConfig, folder: Path) -> None:
    """Tell the config of a run its folder, where its loggers and callbacks write."""
    if "run_folder" in cfg:
        cfg.run_folder = str(folder)


def compose_single(script: str, words: Sequence[str]) -> DictConfig:
    """The config of a call from Python.

    Raises:
        ValueError: words about Hydra's own folders and sweeps, of which such a call makes no use.
    """
    for word in words:
        if re.match(r"[+~]*hydra[./]", word):
            raise ValueError(f"{word} has no meaning in a call from Python; name a run's folder by folder=")
    cfg = hydra.compose(script, in_full(script, words), return_hydra_config=True)
    if cfg.hydra.mode == RunMode.MULTIRUN:
        raise ValueError("experiment=: this preset is a sweep, for the command line; call once for each of its jobs")
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    return cfg


@dataclass
class Task:
    """A command as Hydra and its launchers call it: one job, its folder's `status.json` saying how it stands."""

    command: Command
    call: Call

    def __post_init__(self) -> None:
        # Hydra asks a function for these.
        self.__name__, self.__module__, self.__doc__ = self.command.name, __name__, self.command.perform.__doc__
        self.configs = own_configs()  # which another machine's command line does not say

    def __call__(self, cfg: DictConfig) -> Any:
        hydra_cfg = HydraConfig.get()
        folder = Path(hydra_cfg.runtime.output_dir)
        self.call.started, self.call.folder = True, folder
        swept = hydra_cfg.mode == RunMode.MULTIRUN
        if swept:
            self.call.sweep = Path(hydra_cfg.sweep.dir)
        words, provenance = hydra_cfg.overrides.task, {}
        if swept and state_of(folder).get("state") == "completed":  # of a sweep that is resumed
            return kept_objective(folder, cfg)
        if not swept:
            self.refuse_at_once(cfg, folder)
            provenance = self.command.provenance(cfg, words, self.configs)
        try:
            # Hydra's own launchers and submitit's come here; a single run has its folder already.
            lock = in_use(folder, "hydra.sweep.dir") if swept else nullcontext()
            with lock, recorded(folder, provenance), data_noted(provenance):
                if swept:
                    self.refuse_sweep_words(cfg, swept)
                    self.command.ready(cfg, words)
                    provenance |= self.command.provenance(cfg, words, self.configs)
                tell_folder(cfg, folder)
                result = self.command.perform(cfg, folder)
                if is_main_process():
                    print(result.report(folder))
                    if (fault := getattr(result, "fault", None)) is not None:  # found, not made: what to exit with
                        self.call.failures.append(fault)
                return objective_of(result.metrics, cfg)
        except BaseException as error:
            self.call.failures.append(f"{folder.name if swept else ''}{': ' if swept else ''}{describe(error)}")
            raise

    def refuse_at_once(self, cfg: DictConfig, folder: Path) -> None:
        """Check a single run, which leaves no folder if it is refused: there is nothing in it but its config."""
        try:
            self.refuse_sweep_words(cfg, swept=False)
            self.command.ready(cfg, HydraConfig.get().overrides.task)
        except Exception as error:
            self.call.failures.append(describe(error))
            discard_unused(folder)
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


def going_on(call: Call) -> str | None:
    """The word by which what was interrupted goes on: a sweep, or a training that has saved something."""
    if call.sweep is not None:
        return word_of("resume", str(call.sweep))
    if call.folder is not None and is_main_process() and (call.folder / LAST_CHECKPOINT).is_file():
        return word_of("ckpt_path", str(call.folder / LAST_CHECKPOINT))
    return None


def command_line(typed: Sequence[str], word: str) -> str:
    """What to type for the same command with one more word, which takes the place of its like."""
    script, *words = typed
    python = [sys.orig_argv[0]] if script.endswith(".py") else []
    key = word.partition("=")[0]
    return shlex.join([*python, script, *(other for other in words if not other.startswith(f"{key}=")), word])


def summarize_sweep(call: Call) -> None:
    """At the end of a sweep its table, whatever became of its jobs; their failures, where the call has none yet."""
    if call.sweep is None or not is_main_process() or not any(call.sweep.glob("*/status.json")):
        return
    from zsteer.sweeps import summary  # which draws: a single run need not wait for that

    print(summary.summarize(call.sweep).report(call.sweep))
    call.failures = call.failures or summary.failures(call.sweep)
