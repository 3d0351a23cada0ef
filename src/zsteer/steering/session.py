"""A session of steering: what jobs share is loaded once, then jobs are steered, many as one batch, and measured."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from hydra.utils import instantiate
from jaxtyping import Bool, Float
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LambdaCallback
from torch import Tensor
from tqdm import tqdm

from zsteer.data import attributes
from zsteer.data.attributes import EDITS
from zsteer.files import is_main_process
from zsteer.networks.fingerprints import fingerprint
from zsteer.networks.inference import check_finite, num_free
from zsteer.networks.loading import load_networks
from zsteer.networks.memory import memory_for
from zsteer.settings import NETWORKS
from zsteer.status import interrupt_of
from zsteer.steering import metrics
from zsteer.steering.history import History
from zsteer.steering.judge import Judge
from zsteer.steering.methods import Fitting, Method, method_of
from zsteer.steering.module import TRAINER_SETTINGS, LatentSteering
from zsteer.steering.reference import reference_logits
from zsteer.steering.results import Steered, measured
from zsteer.steering.rows import Rows, step_length
from zsteer.steering.start import starting_noise
from zsteer.training.callbacks import Stopped, Termination
from zsteer.training.fitting import made_by_lightning, misconfiguration_told


@dataclass(frozen=True)
class Job:
    """A job that is ready to be steered: its settings as in `metrics.json`, its start, its rows, the steps shown."""

    settings: dict[str, Any]
    noise: Float[Tensor, "n z_dim"]
    rows: Rows
    shown: frozenset[int]


def group_of(cfg: DictConfig) -> str:
    """What jobs must have in common to be steered together, as text: networks, method, precision, steps, `max_rows`.

    All else differs from row to row: target (but for one that joins several, for which the networks have a logit
    more), edit, penalty, step size, seed, noise, number of images.
    """
    sections = [cfg[name] for name in (*NETWORKS, "method", "steering", "trainer")]
    shared = [section and OmegaConf.to_container(section, resolve=True) for section in sections]
    regressors = [attributes.needs_regressor(section, cfg.target) for section in (cfg.classifier, cfg.judge) if section]
    joined = (cfg.target, cfg.edit) if "+" in str(cfg.target) else None
    random = any(cfg[role] and cfg[role].get("checkpoint") is None for role in NETWORKS)
    numbers = [cfg[key] for key in ("num_steps", "record_every", "max_rows")]
    return json.dumps([shared, regressors, joined, numbers, cfg.seed if random else None])


class Session:
    """What the jobs of a group share (see `group_of`), from a checked config of one of them.

    Raises:
        ValueError, FileNotFoundError: a network or a setting of the method does not fit.
    """

    def __init__(self, cfg: DictConfig):
        trainer = made_by_lightning(cfg.trainer, **TRAINER_SETTINGS)
        self.device, self.alone = trainer.strategy.root_device, trainer.world_size == 1
        torch.manual_seed(cfg.seed)  # for networks that come without a checkpoint
        self.dtype = torch.float64 if cfg.trainer.precision == "64-true" else torch.float32
        self.method = method_of(cfg.method)
        self.module_class = instantiate(cfg.steering, _partial_=True)
        kind = self.module_class.func
        if not (isinstance(kind, type) and issubclass(kind, LatentSteering)):
            raise ValueError(f"steering._target_={cfg.steering._target_} must be LatentSteering or a subclass of it")
        self.networks = load_networks(cfg, self.dtype)
        self.trainer, self.num_steps, self.record_every = cfg.trainer, cfg.num_steps, cfg.record_every
        self.max_rows = cfg.max_rows
        self._pair = self.networks.frozen(self.dtype, self.device)
        self._starts: dict[str, Tensor] = {}

    def job(self, cfg: DictConfig) -> Job:
        """The job of a checked config of this group.

        Raises:
            ValueError: its noise does not fit, or `where` fits too few samples.
        """
        aim = (cfg.target, cfg.edit) if cfg.where == "auto" else None
        start = str((cfg.noise, cfg.seed, cfg.num_images, cfg.where, cfg.condition, aim))
        if start not in self._starts:
            self._starts[start] = starting_noise(cfg, self.networks).to(self.dtype)
        noise, names = self._starts[start], self.networks.classifier.names
        free = num_free(self.networks.generator)
        target = attributes.find(cfg.target, names)
        settings = {
            "target": names[target],
            "edit": cfg.edit,
            "method": self.method.name,
            "penalty_weight": float(cfg.penalty_weight),
            "num_steps": cfg.num_steps,
            "step_size": step_length(cfg.step_size, free),
            "num_images": len(noise),
            "seed": cfg.seed,
        }
        sign = EDITS[cfg.edit]
        rows = Rows.of_job(
            num_rows=len(noise),
            target=target,
            sign=sign,
            penalty_weight=settings["penalty_weight"],
            step_size=settings["step_size"],
            kept=self._kept(cfg.preserve, names[target]),
            until=math.inf if cfg.until is None else self._logit(cfg.until, names[target], sign),
            last_step_size=step_length(cfg.last_step_size, free),
        )
        return Job(settings, noise, rows, frozenset(range(0, cfg.num_steps, cfg.show_every)))

    def _kept(self, preserve: str | Sequence[str], target: str) -> Bool[Tensor, " k"]:
        """Which logits a job's penalty holds in place: `all` but the target, the `others` of its figures, or a list."""
        names = self.networks.classifier.names
        if isinstance(preserve, str):
            kept = set(attributes.others_of(target, names, with_entailed=preserve == "all"))
        else:
            kept = {names[attributes.find(name, names, key="preserve")] for name in preserve}
        return torch.tensor([name in kept for name in names])

    def _logit(self, until: float, target: str, sign: float) -> float:
        """The signed logit at which a label has the probability `until`, or a factor the value."""
        if target in self.networks.classifier.factors:
            return sign * until * getattr(self.networks.classifier.network, "scale", 1.0)
        return math.log(until / (1 - until))

    def steer(
        self, jobs: Sequence[Job], progress_bar: bool = True, after_step: Callable[[int], None] | None = None
    ) -> list[History]:
        """Steer the rows of all jobs as one batch, on the Trainer's devices; what the rows of each went through.

        In two batches, and so on, where one device's memory does not hold all; a job of more than `max_rows` rows in
        parts of so many.

        Args:
            after_step: is told how many steps are done, after each.

        Raises:
            KeyboardInterrupt: Ctrl-C came.
            InterruptedError: SIGTERM came to one of several processes.
        """
        if len(jobs) == 1 and len(jobs[0].noise) > self.max_rows:
            return [self._in_parts(jobs[0], self.max_rows, progress_bar, after_step)]
        shown = progress_bar and self.trainer.get("enable_progress_bar", True)
        trainer = made_by_lightning(self.trainer, **TRAINER_SETTINGS, enable_progress_bar=shown)
        callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        if after_step is not None:
            callbacks.append(LambdaCallback(on_train_batch_end=lambda *args: after_step(args[-1] + 1)))
        if not self.alone:  # else this process ends at once
            callbacks.append(Termination())
        module = self.module_class(
            *self._pair,
            noise=torch.cat([job.noise for job in jobs]),
            rows=Rows.joined([job.rows for job in jobs]),
            method=self.fitted_method,
            sigma=metrics.sigma_of(self.references[0]),
            show_steps=frozenset[int]().union(*(job.shown for job in jobs)),
            record_every=self.record_every,
        )
        # The processes of several devices would not run out of memory together.
        with memory_for(len(module.rows)) if self.alone else nullcontext():
            try:
                with misconfiguration_told():
                    trainer.fit(module, range(self.num_steps))
            except Stopped:
                raise InterruptedError("terminated") from None
            except SystemExit as error:
                raise interrupt_of(error) from None
            self._pair = module.networks  # frozen now, which the next batch need not do again
            histories, first = [], 0
            for job in jobs:
                histories.append(module.history.of_rows(slice(first, first + len(job.noise))))
                first += len(job.noise)
            return histories
        del trainer, module, callbacks
        if len(jobs) > 1:
            middle = len(jobs) // 2
            halves = (jobs[:middle], jobs[middle:])
            return [history for half in halves for history in self.steer(half, progress_bar, after_step)]
        return [self._in_parts(jobs[0], -(-len(jobs[0].noise) // 2), progress_bar, after_step)]

    def _in_parts(self, job: Job, most: int, progress_bar: bool, after_step: Callable[[int], None] | None) -> History:
        """What the rows of a job went through, of which so many are steered at a time."""
        parts = list(range(0, len(job.noise), most))
        shown = progress_bar and self.trainer.get("enable_progress_bar", True) and is_main_process()
        histories = []
        for first in tqdm(parts, desc=f"Steering {most} images at a time", unit="part", disable=not shown):
            rows = slice(first, first + most)
            part = replace(job, noise=job.noise[rows], rows=job.rows[rows])
            histories += self.steer([part], False, after_step)
        return History.joined(histories)

    @cached_property
    def fitted_method(self) -> Method:
        """The method, which may first have had to learn from unsteered samples."""
        if isinstance(self.method, Fitting):
            return self.method.fit(self.networks, self.references[0])
        return self.method

    def check_finite(self, history: History) -> None:
        """
        Raises:
            NonFiniteScore: a score became NaN or infinite; the message says what broke.
        """
        with torch.no_grad():
            history.check_finite(lambda noise: self.networks.frozen(self.dtype, self.device)[0](noise.to(self.device)))

    def measure(self, job: Job, history: History) -> Steered:
        """A job's figures and picture, from its history; the judge scores the first and the last images.

        Raises:
            NonFiniteScore: a score became NaN or infinite; its `history` has the steps before.
            ValueError: a classifier gives NaN or infinity.
        """
        self.check_finite(history)
        last = max(history.images)
        history.images = {step: images for step, images in history.images.items() if step in {*job.shown, last}}
        classifier = self.networks.classifier
        return measured(
            job.settings,
            history,
            classifier.names,
            self.references,
            self.judge,
            classifier.factors,
            num_free(self.networks.generator),
        )

    @cached_property
    def judge(self) -> Judge | None:
        """The judge, where the first batch was steered."""
        return None if self.networks.judge is None else Judge(self.networks.judge, self.device)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """What the networks are known by, by their roles."""
        networks = {"generator": self.networks.generator, "classifier": self.networks.classifier.network}
        if self.networks.judge is not None:
            networks["judge"] = self.networks.judge.network
        return {role: fingerprint(network) for role, network in networks.items()}

    @cached_property
    def references(self) -> list[Float[Tensor, "samples k"]]:
        """The classifier's and, if there is one, the judge's logits over unsteered samples.

        Raises:
            ValueError: some are NaN or infinite.
        """
        scorers = [scorer for scorer in (self.networks.classifier, self.networks.judge) if scorer is not None]
        references = reference_logits(self.networks.generator, [scorer.network for scorer in scorers], self.device)
        for role, reference in zip(("classifier", "judge"), references, strict=False):
            check_finite(role, reference)
        return references
