"""The folders of runs and sweeps: taken before Hydra writes into them, named where they cannot be written."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from zsteer.files import atomic_write, is_main_process
from zsteer.locks import FILE as LOCK
from zsteer.locks import in_use
from zsteer.status import Call, refuse_completed


class FolderTaken(BaseException):
    """A folder that this command cannot have. Of what is an Exception, Hydra would make a warning."""


# The folders of the command that runs: Hydra makes the callback that takes them, out of the command's reach.
TAKEN = ExitStack()


class TakeFolder(Callback):
    """Takes a run's or a sweep's folder, whoever named it, before Hydra writes this run's config over another's."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """
        Raises:
            FolderTaken: it holds a completed run, another run is at work in it, or it cannot be written.
        """
        with _refusing("hydra.run.dir"):
            folder = Path(config.hydra.run.dir)
            TAKEN.enter_context(in_use(folder, "hydra.run.dir"))
            refuse_completed(folder, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """
        Raises:
            FolderTaken: another sweep is at work in it, or it cannot be written.
        """
        with _refusing("hydra.sweep.dir"):
            TAKEN.enter_context(in_use(Path(config.hydra.sweep.dir), "hydra.sweep.dir"))


@contextmanager
def _refusing(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FolderTaken(unwritable(error, key)) from None
    except ValueError as error:
        raise FolderTaken(str(error)) from None


def named_folder(error: BaseException, call: Call) -> BaseException:
    """The error, or one that names the key of the folder where it came from a folder that cannot be written."""
    if isinstance(error, OSError) and not isinstance(error, HydraException) and not call.started:
        return ValueError(unwritable(error, "hydra.sweep.dir" if call.sweep else "hydra.run.dir"))
    return error


def unwritable(error: OSError, key: str) -> str:
    """What to say of a folder that cannot be written; for its own files Hydra gives no name."""
    return f"{key}: cannot write {error.filename or 'the config'} ({error.strerror}); name another folder"


def write_config(folder: Path, cfg: DictConfig, words: Sequence[str]) -> None:
    """Write the config and the words of a run, where Hydra would."""
    for name, content in {"config": cfg, "overrides": OmegaConf.create(list(words))}.items():
        with atomic_write(folder / ".hydra" / f"{name}.yaml") as temporary:
            temporary.write_text(OmegaConf.to_yaml(content), encoding="utf-8")


def discard_unused(folder: Path) -> None:
    """Remove the folder of a run that was refused, if there is nothing in it but its config."""
    if not is_main_process() or not {path.name for path in folder.iterdir()} <= {".hydra", LOCK}:
        return
    log = logging.getLogger()
    for handler in list(log.handlers):  # Hydra's, which would write there
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder:
            log.removeHandler(handler)
    shutil.rmtree(folder)
