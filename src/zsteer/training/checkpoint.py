"""A training checkpoint is compared with what the run that goes on from it would itself save, before any of it is used.

What is taken unseen ends deep inside of torch or Lightning, or trains something else than was asked for.
"""

import copy
import itertools
import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from zsteer.networks.checkpoints import check_same, form_of, read

LARGEST_COUNT = 2**53
RATES = {"lr": math.inf, "betas": 1.0, "momentum": 1.0}  # settings of optimizers, and what they are less than


class Resumed(Callback):
    """The checkpoint that a run goes on from: its weights are compared at once, the rest before Lightning takes it.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, not one of a training run, or its weights are not this run's.
    """

    def __init__(self, path: str | Path, module: LightningModule):
        self.where = f"ckpt_path={path}"
        self.content: Mapping[Any, Any] = read(Path(path), self.where)
        if not {"epoch", "state_dict"} <= set(self.content):
            raise ValueError(
                f"{self.where} is not a checkpoint of a training run; weights go to generator.checkpoint or "
                "classifier.checkpoint"
            )
        weights, expected = self.content["state_dict"], module.state_dict()
        tensors = isinstance(weights, Mapping) and all(isinstance(value, Tensor) for value in weights.values())
        self._require(tensors, "state_dict", "does not map names to tensors")
        check_same(weights, expected, self.where, "this run's networks")
        self._compare(self.content, {"epoch": 0, "state_dict": expected})
        self.ended_epochs: int = self.content["epoch"]  # runs that ended; to Lightning, what is left is another epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """
        Raises:
            ValueError: what module, data, loops and callbacks have saved is not what they would save, or disagrees.
        """
        if stage != "fit":
            return
        version = str(self.content.get("pytorch-lightning_version"))
        known = re.fullmatch(r"2(\.\d{1,3}){2}((rc|\.post|\.dev)\d{1,3})?", version)
        self._require(known, "pytorch-lightning_version", f"is {version:.40}, not a release of Lightning 2")
        wanted: dict[str, Any] = {"global_step": 0, "loops": {"fit_loop": trainer.fit_loop.state_dict()}}
        pl_module.on_save_checkpoint(wanted)
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        place = type(data).__qualname__
        self._require(isinstance(self.content.get(place), Mapping), place, "is missing: the data were others")
        saved = self.content[place]
        # An earlier version saved `start` alone.
        wanted[place] = {key: count for key, count in data.state_dict().items() if key == "start" or key in saved}
        saved = self.content.get("callbacks")
        self._require(isinstance(saved, Mapping), "callbacks", "does not map names to states")
        callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        wanted["callbacks"] = {one.state_key: one.state_dict() for one in callbacks if one.state_key in saved}
        self._compare(self.content, wanted)
        self._check_counts(self.content["loops"]["fit_loop"], place)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Which batch is the last is up to this run; Lightning would do none after the one that was it then."""
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """
        Raises:
            ValueError: the states of optimizers or schedulers are not what this run's would be.
        """
        optimizers = [_after_a_step(optimizer) for optimizer in trainer.optimizers]
        schedulers = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        # Their states may lack those of weights without gradients.
        wanted = [{"param_groups": optimizer["param_groups"], "state": {}} for optimizer in optimizers]
        self._compare(self.content, {"optimizer_states": wanted, "lr_schedulers": schedulers})
        for i, (saved, optimizer) in enumerate(zip(self.content["optimizer_states"], optimizers, strict=True)):
            self._check_optimizer(saved, optimizer, f"optimizer_states.{i}")
        steps = self.content["global_step"]
        for i, saved in enumerate(self.content["lr_schedulers"]):
            self._agree(f"lr_schedulers.{i}.last_epoch", saved["last_epoch"], "global_step", steps)
            self._agree(f"lr_schedulers.{i}._step_count", saved["_step_count"], "global_step + 1", steps + 1)
        self.content = {}

    def _check_optimizer(self, saved: Mapping[str, Any], wanted: Mapping[str, Any], place: str) -> None:
        for i, (group, own) in enumerate(zip(saved["param_groups"], wanted["param_groups"], strict=True)):
            at = f"{place}.param_groups.{i}"
            self._require(group["params"] == own["params"], f"{at}.params", "are not this run's")
            for name, limit in RATES.items():
                rates = group.get(name, 0)
                for rate in rates if isinstance(rates, list | tuple) else [rates]:
                    self._require(0 <= rate < limit, f"{at}.{name}", f"is {rate:g}")
        lost = wanted["state"] and not saved["state"] and self.content["global_step"] > 0
        self._require(not lost, f"{place}.state", "is empty")
        numbers = {number for group in wanted["param_groups"] for number in group["params"]}
        for number, state in saved["state"].items():
            at = f"{place}.state.{number}"
            self._require(number in numbers, at, "belongs to no weight")
            own = wanted["state"].get(number, {})
            self._compare(state, own, at)
            for name in own:  # a fused step takes the numbers in the order in which they lie
                self._require(_strides(state[name]) == _strides(own[name]), f"{at}.{name}", "lies otherwise in memory")
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim == 0:  # counts steps
                    within = 0 <= value.item() <= self.content["global_step"]
                    self._require(within, f"{at}.{name}", f"is {value.item():g}, more than there were steps")

    def _check_counts(self, loops: Mapping[str, Any], data: str) -> None:
        """What is counted in several places must be one number."""
        for name, counts in _counters(loops):
            ready, completed = counts["ready"], counts["completed"]
            order = [completed, counts.get("processed", completed), counts.get("started", ready), ready]
            right = order == sorted(order) and ready <= completed + 1
            self._require(right, f"loops.fit_loop{name}", f"has counts that cannot be, {order}")
        self._require(not loops["state_dict"], "loops.fit_loop.state_dict", "has a place in data that keep none there")
        stream, progress, epochs = self.content[data], self.content.get("progress", {}), loops["epoch_progress"]
        steps = (
            loops["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"]
            + loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
        )
        self._agree("global_step", self.content["global_step"], "the optimizers' steps", steps)
        for part, count in itertools.product(("total", "current"), ("completed", "processed")):
            self._agree("epoch", self.ended_epochs, f"epoch_progress.{part}.{count}", epochs[part][count])
        batches, counted = stream["start"], stream.get("counted", 0)
        of_loop = loops["epoch_loop.batch_progress"]["total"]["ready"]
        self._agree(f"{data}.start", batches, "epoch_loop.batch_progress.total.ready", of_loop)
        self._agree(f"{data}.start", batches, "progress.num_iterations", progress.get("num_iterations", batches))
        self._agree(f"{data}.counted", counted, "progress.num_images", progress.get("num_images", counted))
        drawn = stream.get("drawn", 0)
        self._require(counted <= drawn <= 2 * counted, f"{data}.drawn", f"is {drawn}, of which {counted} counted")

    def _compare(self, found: Any, wanted: Any, place: str = "") -> None:
        """Refuse the first entry that is not of the form of `wanted`; what else there is does not matter."""
        if fault := _misfit(found, wanted):
            self._require(False, place, fault)
        if isinstance(wanted, Mapping):
            for key, value in wanted.items():
                at = f"{place}.{key}".removeprefix(".")
                self._require(key in found, at, "is missing")
                self._compare(found[key], value, at)
        elif isinstance(wanted, list | tuple):
            for i, value in enumerate(found):
                self._compare(value, wanted[i] if wanted else "", f"{place}.{i}")  # of names, where none is known yet

    def _agree(self, place: str, count: int, other: str, wanted: int) -> None:
        self._require(count == wanted, place, f"is {count}, but {other} is {wanted}")

    def _require(self, right: Any, place: str, fault: str) -> None:
        if not right:
            raise ValueError(f"{self.where}: {place} {fault}; the file is damaged or another run's, take another")


def resumed_from(ckpt_path: str | None, module: LightningModule) -> Resumed | None:
    """The checkpoint to go on from, if there is one; see `Resumed`."""
    return None if ckpt_path is None else Resumed(ckpt_path, module)


def _after_a_step(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state dict of a copy of an optimizer that has gone a step by gradients of 0; settings that count nothing."""
    trial = copy.deepcopy(optimizer)
    for group in trial.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    type(trial).step(trial, lambda: 0.0)  # of the class, since a scheduler replaces the instance's
    state = trial.state_dict()
    for group in state["param_groups"]:
        group.update({key: float(value) for key, value in group.items() if type(value) is int})
    return state


def _strides(value: Any) -> list[int]:
    """Where a tensor's numbers lie, by its dimensions of more than one."""
    if not isinstance(value, Tensor):
        return []
    return [stride for stride, size in zip(value.stride(), value.shape, strict=True) if size > 1]


def _counters(part: Any, place: str = "") -> Iterator[tuple[str, Mapping[str, int]]]:
    """All counts of Lightning's progress in nested dicts."""
    if isinstance(part, Mapping):
        if "ready" in part:
            yield place, part
        for key, value in part.items():
            yield from _counters(value, f"{place}.{key}")


def _misfit(found: Any, wanted: Any) -> str | None:
    """How one value differs from another in form: kinds, lengths, shapes; numbers are finite, and counts are counts."""
    number = isinstance(found, int | float) and not isinstance(found, bool)
    if isinstance(wanted, Tensor):
        if not isinstance(found, Tensor) or _shown(found) != _shown(wanted):
            return f"is {_shown(found)}, not {_shown(wanted)}"
        return None if found.isfinite().all() else "is NaN or infinite"
    if isinstance(wanted, Mapping):
        kind, right = "a dict", isinstance(found, Mapping)
    elif isinstance(wanted, list | tuple):
        kind = f"a list of {len(wanted)}"
        right = isinstance(found, list | tuple) and (not wanted or len(found) == len(wanted))
    elif isinstance(wanted, str):
        kind, right = "a word", isinstance(found, str)
    elif wanted is None or isinstance(wanted, bool):
        kind, right = "true or false", found is None or isinstance(found, bool)
    elif isinstance(wanted, int):
        kind, right = "a count", number and isinstance(found, int) and 0 <= found < LARGEST_COUNT
    else:
        kind, right = "a finite number", number and abs(found) <= sys.float_info.max
    return None if right else f"is {_shown(found)}, not {kind}"


def _shown(value: Any) -> str:
    """A value in an error: of tensors what has to agree, of all else what fits into a line."""
    if isinstance(value, Tensor):
        kind = "complex" if value.is_complex() else "floating" if value.is_floating_point() else "whole"
        return f"{form_of(value)} {kind}"
    if isinstance(value, Mapping | list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r:.40}".replace("\n", " ")
