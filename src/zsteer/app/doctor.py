"""What of an installation works: each thing that is looked at is a finding, with a remedy where something is wrong.

torch may be broken or missing, so what needs it is imported where it is looked at.
"""

import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from zsteer.app.provenance import installed, versions
from zsteer.files import cache_folder, is_main_process, write_json
from zsteer.status import describe

HEAVY = ("torch", "torchvision", "pytorch_lightning")  # which are imported to see whether they can be
# Of each extra, the packages and who needs them.
EXTRAS = {
    "codes": (("sklearn",), "evaluate what=codes"),
    "docs": (("mkdocs", "material"), "make docs"),
    "explore": (("gradio", "onnx", "onnxruntime", "onnxscript"), "explore and export"),
    "inception": (("torch_fidelity",), "inception=FILE"),
    "mlflow": (("mlflow",), "logger=mlflow"),
    "notebook": (("ipykernel", "nbclient", "nbformat"), "the notebook in examples"),
    "ray": (("ray", "hydra_plugins.hydra_ray_launcher"), "hydra/launcher=ray"),
    "rich": (("rich",), "callbacks=rich_progress"),
    "sweeps": (
        ("hydra_plugins.hydra_optuna_sweeper", "hydra_plugins.hydra_submitit_launcher"),
        "hydra/sweeper=optuna and hydra/launcher=slurm",
    ),
    "wandb": (("wandb",), "logger=wandb"),
}
ROOM = 1.0  # GB that a run should find, for its files and a store of drawn faces


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Args:
        remedy: what to do; None where nothing is wrong.
        stops: whether `steer` does not work so.
    """

    about: str
    said: str
    remedy: str | None = None
    stops: bool = False

    @property
    def state(self) -> str:
        """`ok`, `missing` what only some commands need, or `problem`."""
        if self.remedy is None:
            return "ok"
        return "problem" if self.stops else "missing"


@dataclass(frozen=True)
class Diagnosis:
    """All findings."""

    findings: Sequence[Finding]

    @property
    def fault(self) -> str | None:
        """What the command fails with; None if nothing stops `steer`."""
        stopping = [finding.about for finding in self.findings if finding.stops and finding.remedy is not None]
        return f"steer does not work here: {', '.join(stopping)}" if stopping else None

    @property
    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds: each finding with its state, by what it is about."""
        return {
            finding.about: {"state": finding.state, "said": finding.said, "remedy": finding.remedy}
            for finding in self.findings
        }

    def report(self, folder: Path) -> str:
        """A line for each finding, and below it the remedy."""
        width = max(len(finding.about) for finding in self.findings)
        lines = []
        for finding in self.findings:
            lines.append(f"  {finding.state:<7}  {finding.about:<{width}}  {finding.said}")
            if finding.remedy is not None:
                lines.append(f"  {'':<7}  {'':<{width}}  → {finding.remedy}")
        return "\n".join(lines)


def examine(cfg: DictConfig, folder: Path | None) -> Diagnosis:
    """Look at everything; `metrics.json` holds what was found."""
    findings = [about_versions(), *packages()]
    works = not any(finding.stops and finding.remedy is not None for finding in findings)
    needing_torch: dict[str, Callable[[], Finding]] = {
        "devices": devices,
        "data": lambda: data(cfg),
        "self-test": self_test,
    }
    findings += [_tried(about, look) for about, look in needing_torch.items()] if works else []
    findings += [*extras(), *folders()]
    diagnosis = Diagnosis(findings)
    if folder is not None and is_main_process():
        write_json(folder / "metrics.json", diagnosis.metrics)
    return diagnosis


def _tried(about: str, look: Callable[[], Finding]) -> Finding:
    """A finding, or what went wrong in looking, whatever that was."""
    try:
        return look()
    except Exception as error:
        remedy = "install zsteer again, into an environment of its own"
        return Finding(about, f"{type(error).__name__}: {describe(error)}", remedy, stops=True)


def about_versions() -> Finding:
    """The versions on which results depend."""
    return Finding("versions", ", ".join(f"{name} {known or '–'}" for name, known in versions().items()))


def packages() -> Iterator[Finding]:
    """Whether what computes can be imported, and fits together."""
    built_for = torch_of_torchvision()
    torch = (installed("torch") or "").partition("+")[0]
    if built_for is not None and torch and built_for != torch:
        said = f"torchvision {installed('torchvision')} was built for torch {built_for}, and this is torch {torch}"
        yield Finding("torchvision", said, f"pip install torch=={built_for}, or the torchvision of torch {torch}", True)
        return
    for package in HEAVY:
        try:
            import_module(package)
        except Exception as error:  # of a library that is not there, or not for this machine, of whatever kind
            name = package.replace("_", "-")
            said = f"cannot be imported: {type(error).__name__}: {describe(error)}"
            both = "torch torchvision" if package == "torchvision" else name  # which have to be of one release
            yield Finding(name, said, f"pip install --force-reinstall {both}", True)
            return  # the others import this one
    yield Finding("packages", f"{', '.join(HEAVY)} can be imported")


def torch_of_torchvision() -> str | None:
    """The version of torch that the installed torchvision was built for; None if it does not say."""
    try:
        wanted = [re.match(r"torch\s*\(?==\s*([\d.]+)", line) for line in requires("torchvision") or ()]
    except PackageNotFoundError:
        return None
    return next((found[1] for found in wanted if found is not None), None)


def devices() -> Finding:
    """What computes, and whether the GPU that torch sees can."""
    import torch

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        seen = torch.cuda.is_available()
    if not seen:
        threads = f"CPU, {torch.get_num_threads()} threads; no GPU"
        if told and torch.version.cuda is not None:  # there is a driver, which is too old
            return Finding("devices", f"{threads}: {describe(ValueError(told[0].message))}", "update the GPU's driver")
        return Finding("devices", threads)
    name = torch.cuda.get_device_name()
    try:
        torch.ones(2, device="cuda").sum().item()
    except RuntimeError as error:
        return Finding("devices", f"{name} cannot be used: {describe(error)}", "trainer=cpu does without", stops=True)
    return Finding("devices", f"{torch.cuda.device_count()} × {name}, {torch.cuda.mem_get_info()[1] / 2**30:.0f} GiB")


def data(cfg: DictConfig) -> Finding:
    """Whether the data's store is there and whole, or what it would be made of; nothing is drawn or fetched."""
    from hydra.utils import instantiate

    from zsteer.data.store import ImageStore, is_complete

    try:
        faces = instantiate(cfg.data)
        if is_complete(faces.place):
            counts = ImageStore.open(faces.place).counts()
            return Finding("data", f"{faces.place}: {', '.join(f'{n:,} {split}' for split, n in counts.items())}")
        faces.check_sources()
        return Finding("data", f"{faces.place} is made at the first training")
    except Exception as error:  # Hydra's own kinds too
        return Finding(
            "data", describe(error), "only trainings and evaluations need data; the line says what is missing"
        )


def self_test() -> Finding:
    """Whether a small steering ends where it should."""
    from zsteer.app.selftest import TOLERANCE, deviation

    off = deviation()
    said = f"noise within {off:.1g} of the reference, {TOLERANCE:g} is allowed"
    if off <= TOLERANCE:
        return Finding("self-test", said)
    return Finding("self-test", said, "install zsteer again; if that is no help, another release of torch", stops=True)


def extras() -> Iterator[Finding]:
    """Which extras are there, and who needs those that are not."""
    for extra, (modules, users) in EXTRAS.items():
        missing = [module.rpartition(".")[2] for module in modules if find_spec(module) is None]
        if missing:
            said = f"for {users}: no {', '.join(missing)}"
            yield Finding(f"zsteer[{extra}]", said, f"pip install 'zsteer[{extra}]', or '.[{extra}]' in a clone")
        else:
            yield Finding(f"zsteer[{extra}]", f"for {users}")


def folders() -> Iterator[Finding]:
    """Whether results can be written here, and what is computed once be kept."""
    outputs = Path("outputs").absolute()
    room = shutil.disk_usage(_existing(outputs)).free / 1e9
    if (reason := unwritable(outputs)) is not None:
        yield Finding("outputs", f"{outputs}: {reason}", "work in a folder of yours, or set hydra.run.dir", stops=True)
    elif room < ROOM:
        yield Finding("outputs", f"{outputs}: {room:.1f} GB free", "make room, or set hydra.run.dir", stops=True)
    else:
        yield Finding("outputs", f"{outputs}: {room:,.0f} GB free")
    try:
        cache = cache_folder()
        reason = unwritable(cache)
    except FileNotFoundError as error:
        cache, reason = Path("~/.cache"), str(error)
    if reason is not None:
        yield Finding("cache", f"{cache}: {reason}", "set XDG_CACHE_HOME to a folder of yours, or wait at each run")
    else:
        yield Finding("cache", str(cache))


def unwritable(folder: Path) -> str | None:
    """Why a folder, or the one that it would be made in, cannot be written; None if it can."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return None
    except OSError as error:
        return error.strerror


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())
