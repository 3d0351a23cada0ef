"""Steering jobs: networks and noise from their configs, steering, figures, files; one job, or many as one batch."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from jaxtyping import Bool, Float
from omegaconf import DictConfig, OmegaConf
from PIL.Image import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from tqdm import tqdm

from zsteer import attributes, metrics, results
from zsteer.checks import EDITS
from zsteer.files import write_json
from zsteer.loading import Networks, load_networks
from zsteer.methods import Fitting
from zsteer.metrics import Scored, sigma_of
from zsteer.networks import frozen, z_dim_of
from zsteer.pictures import png, save_picture, to_uint8
from zsteer.reference import reference_logits
from zsteer.rows import Rows
from zsteer.run import is_main_process, output_folder
from zsteer.steering import TRAINER_SETTINGS, History, NonFiniteScore, network_dtype, steer

MAX_SAMPLES = 20_000  # that `where` looks through before it gives up
SAMPLE_BATCH = 200


@dataclass(frozen=True)
class Steered:
    """What a job did: its history, its settings and figures as in `metrics.json`, its picture.

    `columns` are the classifier's of the target and of what it joins. `side_effects` is the judge's mean |Δ| / σ of
    each attribute that the target does not entail. `kept` goes into the history's file beside it, for a sweep's
    summary: `first_image` uint8 `[2, 3, H, W]` at the start and the end, and with a judge its `judge_logits`
    `[2, n, K]` then, and each image's `judge_gain` and `judge_dependency` `[n]`.
    """

    history: History
    columns: list[int]
    settings: dict[str, Any]
    figures: dict[str, float | None]
    side_effects: dict[str, float]
    image: Float[Tensor, "3 h w"]
    kept: dict[str, Tensor]

    @property
    def picture(self) -> Image:
        """One column per image, time downwards, the last row final; below, the judge's probabilities (a factor's σ)."""
        return to_pil_image(self.image)

    def write(self, folder: Path) -> None:
        """Write every file of a run folder, `metrics.json` last."""
        encoded = png(self.image)
        results.save_history(folder / "history.safetensors", self.history, self.kept)
        save_picture(folder / "steering.png", encoded)
        results.write_events(folder, self.history, self.columns, self.image, self.settings, self.figures, encoded)
        write_json(folder / "metrics.json", self.content)

    @property
    def content(self) -> dict[str, Any]:
        """What `metrics.json` holds."""
        return {**self.settings, **self.figures}

    def __str__(self) -> str:
        title = "{edit} {target} by {method}, penalty {penalty_weight:g}".format(**self.settings)
        return f"{title}\n{results.table(self.figures, self.side_effects)}"


@dataclass(frozen=True)
class Plan:
    """A job that is ready to be steered: its settings as in `metrics.json`, its start, its rows, the steps shown."""

    settings: dict[str, Any]
    noise: Float[Tensor, "n z_dim"]
    rows: Rows
    shown: frozenset[int]


def run(cfg: DictConfig) -> dict[str, Any]:
    """Steer as a checked config says, write the run folder's files, return what `metrics.json` holds."""
    folder = output_folder()
    try:
        steered = perform(cfg)
    except NonFiniteScore as error:
        keep_history(folder, error)
        raise
    if is_main_process():
        steered.write(folder)
        print(f"{steered}\n  {folder / 'steering.png'}")
    return steered.content


def keep_history(folder: Path, error: NonFiniteScore) -> None:
    """Keep the steps before a score became NaN or infinite."""
    if error.history.noise and is_main_process():
        results.save_history(folder / "history.safetensors", error.history)


def perform(cfg: DictConfig) -> Steered:
    """Steer as a checked config says and measure what that did.

    Raises:
        ValueError, FileNotFoundError: a network or the noise does not fit.
        NonFiniteScore: a score became NaN or infinite; its `history` has the steps before.
    """
    bench = Bench(cfg)
    (steered,) = bench.steer([bench.plan(cfg)])
    if isinstance(steered, ValueError):
        raise steered
    return steered


def group_of(cfg: DictConfig) -> str:
    """What jobs must have in common to be steered together, as text: networks, method, precision, number of steps.

    All else differs from row to row: target (but for one that joins several, for which the networks have a logit
    more), edit, penalty, step size, seed, noise, number of images.
    """
    sections = [cfg[name] for name in ("generator", "classifier", "judge", "method", "trainer")]
    shared = [section and OmegaConf.to_container(section, resolve=True) for section in sections]
    regressors = [attributes.needs_regressor(section, cfg.target) for section in (cfg.classifier, cfg.judge) if section]
    joined = (cfg.target, cfg.edit) if "+" in str(cfg.target) else None
    random = any(
        section and section.get("checkpoint") is None for section in (cfg.generator, cfg.classifier, cfg.judge)
    )
    return json.dumps([shared, regressors, joined, cfg.num_steps, cfg.seed if random else None])


class Bench:
    """What the jobs of a group share, loaded once: networks, method, Trainer settings; see `group_of`.

    Raises:
        ValueError, FileNotFoundError: a network does not fit.
    """

    def __init__(self, cfg: DictConfig):
        torch.manual_seed(cfg.seed)  # for networks that come without a checkpoint
        self.dtype = torch.float64 if cfg.trainer.precision == "64-true" else torch.float32
        self.networks = load_networks(cfg, self.dtype)
        self.method, self.trainer, self.num_steps = instantiate(cfg.method), cfg.trainer, cfg.num_steps
        self._starts: dict[str, Tensor] = {}
        self._judged: dict[bytes, Tensor] = {}
        self._judge: nn.Module | None = None
        self._frozen: list[nn.Module] = []
        self._fitted = False
        self.device = torch.device("cpu")  # until a Trainer says where

    def plan(self, cfg: DictConfig) -> Plan:
        """The job of a checked config.

        Raises:
            ValueError: its noise does not fit, or `where` fits too few samples.
        """
        key = str((cfg.noise, cfg.seed, cfg.num_images, cfg.where))
        if key not in self._starts:
            self._starts[key] = starting_noise(cfg, self.networks).to(self.dtype)
        noise, names = self._starts[key], self.networks.classifier.names
        target = attributes.find(cfg.target, names)
        settings = {
            "target": names[target],
            "edit": cfg.edit,
            "method": self.method.name,
            "penalty_weight": float(cfg.penalty_weight),
            "num_steps": cfg.num_steps,
            "step_size": float(cfg.step_size),
            "num_images": len(noise),
            "seed": cfg.seed,
        }
        sign, kept = EDITS[cfg.edit], self._kept(cfg.preserve, names[target])
        until = math.inf if cfg.until is None else self._logit(cfg.until, names[target], sign)
        rows = Rows.of_job(
            *(len(noise), target, sign, settings["penalty_weight"], settings["step_size"], kept),
            until=until,
            last_step_size=float(cfg.last_step_size),
        )
        return Plan(settings, noise, rows, frozenset(range(0, cfg.num_steps, cfg.show_every)))

    def _kept(self, preserve: str | Sequence[str], target: str) -> Bool[Tensor, " k"]:
        """Which logits a job's penalty holds in place: `all` but the target, the `others` of its figures, or a list."""
        names = self.networks.classifier.names
        if isinstance(preserve, str):
            kept = set(metrics.others_of(target, names, entailed=preserve == "all"))
        else:
            kept = {names[attributes.find(name, names, key="preserve")] for name in preserve}
        return torch.tensor([name in kept for name in names])

    def _logit(self, until: float, target: str, sign: float) -> float:
        """The signed logit at which a label has the probability `until`, or a factor the value."""
        if target in self.networks.classifier.factors:
            return sign * until * getattr(self.networks.classifier.network, "scale", 1.0)
        return math.log(until / (1 - until))

    def steer(self, plans: Sequence[Plan], progress_bar: bool = True) -> list[Steered | ValueError]:
        """Steer the rows of all plans as one batch; for each plan what it did, or why it failed."""
        return [
            self._measured(plan, history)
            for plan, history in zip(plans, self.histories(plans, progress_bar), strict=True)
        ]

    def histories(self, plans: Sequence[Plan], progress_bar: bool = True) -> list[History]:
        """Steer the rows of all plans as one batch; what the rows of each went through."""
        noise, rows = torch.cat([plan.noise for plan in plans]), Rows.joined([plan.rows for plan in plans])
        shown = frozenset[int]().union(*(plan.shown for plan in plans))
        trainer = instantiate(self.trainer, **TRAINER_SETTINGS, enable_progress_bar=progress_bar)
        self.device = trainer.strategy.root_device
        if isinstance(self.method, Fitting) and not self._fitted:
            self.method, self._fitted = self.method.fit(self.networks.generator, self.references[0]), True
        if not self._frozen:
            dtype = network_dtype(self.trainer.precision, self.dtype)
            pair = (self.networks.generator, self.networks.classifier.network)
            self._frozen = [frozen(network, dtype, self.device) for network in pair]
        generator, classifier = self._frozen
        sigma = sigma_of(self.references[0])
        history = steer(generator, classifier, noise, rows, self.method, self.num_steps, sigma, shown, trainer)
        lengths = [len(plan.noise) for plan in plans]
        ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
        return [history.of_rows(slice(end - length, end)) for end, length in zip(ends, lengths, strict=True)]

    def _measured(self, plan: Plan, history: History) -> Steered | ValueError:
        try:
            history.check_finite()
            return self._figures(plan, history)
        except ValueError as error:
            return error

    def _figures(self, plan: Plan, history: History) -> Steered:
        """A job's figures and picture, from its history; the judge scores the first and the last images.

        Raises:
            ValueError: a classifier gives NaN or infinity.
        """
        last = max(history.images)
        history.images = {step: images for step, images in history.images.items() if step in {*plan.shown, last}}
        target, sign = plan.settings["target"], EDITS[plan.settings["edit"]]
        networks, references = self.networks, self.references
        classifier = Scored(networks.classifier.names, history.logits[0], history.logits[-1], references[0])
        judge, captions, effects, judged = None, [], {}, {}
        if networks.judge is not None:
            before, after = (self.judge_logits(history.images[step]) for step in (0, last))
            judge = Scored(networks.judge.names, before, after, references[1])
            column = attributes.find(target, judge.names)
            others = metrics.others_of(target, judge.names)
            factor = judge.names[column] in networks.judge.factors
            seen = [logits[:, column] if factor else logits[:, column].sigmoid() for logits in (before, after)]
            captions = [f"{start:.2f} to {end:.2f}" for start, end in zip(*seen, strict=True)]
            effects = metrics.side_effects(judge, others)
            judged = metrics.by_image(judge, target, sign, others) | {"judge_logits": torch.stack([before, after])}
        figures = metrics.figures(target, sign, history.noise[-1], classifier, judge)
        image = results.picture(history, captions)
        ends = torch.stack([history.images[step][0] for step in (0, last)])
        kept = {"first_image": to_uint8(ends), **judged}
        names = networks.classifier.names
        aim = dict.fromkeys((target, *attributes.parts(target)))
        columns = [names.index(name) for name in aim if name in names]
        return Steered(history, columns, plan.settings, figures, effects, image, kept)

    @cached_property
    def references(self) -> list[Float[Tensor, "samples k"]]:
        """The classifier's and, if there is one, the judge's logits over unsteered samples.

        Raises:
            ValueError: some are NaN or infinite.
        """
        scorers = [scorer for scorer in (self.networks.classifier, self.networks.judge) if scorer is not None]
        references = reference_logits(self.networks.generator, [scorer.network for scorer in scorers], self.device)
        for role, reference in zip(("classifier", "judge"), references, strict=False):
            _check_finite(role, reference)
        return references

    @torch.no_grad()
    def judge_logits(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """The judge's logits, kept, because many jobs of a sweep start from the same images.

        Raises:
            ValueError: some are NaN or infinite.
        """
        assert self.networks.judge is not None
        self._judge = self._judge or frozen(self.networks.judge.network, torch.float32, self.device)
        key = hashlib.sha256(images.numpy().tobytes()).digest()
        if key not in self._judged:
            self._judged[key] = self._judge(images.to(self.device)).cpu()
        _check_finite("judge", self._judged[key])
        return self._judged[key]


def _check_finite(role: str, logits: Tensor) -> None:
    if not logits.isfinite().all():
        remedy = "use another, or judge=none" if role == "judge" else "use another"
        raise ValueError(f"{role}.network gives NaN or infinite logits for this generator's images; {remedy}")


def starting_noise(cfg: DictConfig, networks: Networks) -> Float[Tensor, "n z_dim"]:
    """The noise that a config starts from: its file, or standard normal by its seed, filtered by `where`."""
    if cfg.noise is not None:
        return read_noise(Path(cfg.noise), z_dim_of(networks.generator))
    random = torch.Generator().manual_seed(cfg.seed)
    if not cfg.where:
        return torch.randn(cfg.num_images, z_dim_of(networks.generator), generator=random)
    return sample_where(networks, dict(cfg.where), cfg.num_images, random)


def read_noise(path: Path, z_dim: int) -> Float[Tensor, "n z_dim"]:
    """The tensor `noise` of a safetensors file.

    Raises:
        ValueError: not such a file, or its tensor is not `[n ≥ 1, z_dim]`, floating and finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if "noise" not in file.keys():
                raise ValueError(f"noise={path} has no tensor 'noise', only {', '.join(file.keys()) or 'none'}")
            noise = file.get_tensor("noise")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"noise={path} is not a readable .safetensors file ({error})") from error
    if noise.ndim != 2 or noise.shape[1] != z_dim or len(noise) == 0:
        raise ValueError(
            f"noise={path} has shape {list(noise.shape)}; it must be [n, {z_dim}], z_dim being the generator's"
        )
    if not noise.is_floating_point():
        raise ValueError(f"noise={path} is {str(noise.dtype).removeprefix('torch.')}; it must be a floating type")
    if not noise.isfinite().all():
        raise ValueError(f"noise={path} has NaN or infinite values")
    return noise


@torch.no_grad()
def sample_where(
    networks: Networks, where: Mapping[str, bool], num_images: int, random: torch.Generator
) -> Float[Tensor, "n z_dim"]:
    """Rejection sampling: standard normal noise whose images the classifier sees as `where` says.

    Raises:
        ValueError: fewer than `num_images` among 20,000 samples.
    """
    generator, classifier = (frozen(net, torch.float32) for net in (networks.generator, networks.classifier.network))
    columns = [attributes.find(name, networks.classifier.names, key="where") for name in where]
    wanted = torch.tensor(list(where.values()))
    accepted: list[Tensor] = []
    for _ in tqdm(range(MAX_SAMPLES // SAMPLE_BATCH), desc="Looking for samples", unit_scale=SAMPLE_BATCH, leave=False):
        noise = torch.randn(SAMPLE_BATCH, z_dim_of(networks.generator), generator=random)
        fits = ((classifier(generator(noise))[:, columns] > 0) == wanted).all(dim=1)
        accepted += noise[fits]
        if len(accepted) >= num_images:
            return torch.stack(accepted[:num_images])
    raise ValueError(
        f"where={dict(where)} fits only {len(accepted)} of {MAX_SAMPLES} samples, fewer than num_images={num_images};"
        f" ask for fewer conditions or images"
    )
