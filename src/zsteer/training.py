"""Training runs: seed, instantiate, fit, and export the weights with their config and figures."""

import warnings
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import nn

from zsteer.callbacks import FidelityScores, LastCheckpoint, SampleGrid, SeededSteps
from zsteer.checkpoints import check_same, read, save_weights
from zsteer.classifier import means
from zsteer.data import FaceData
from zsteer.files import write_json
from zsteer.gan import GANModule
from zsteer.loading import attempt, load_classifier, load_network, try_generator
from zsteer.run import output_folder


def train_gan(cfg: DictConfig) -> dict[str, Any]:
    """Train a GAN; the run folder gets `generator.safetensors` (the average), `samples.png`, events and checkpoints."""
    folder = output_folder()
    seed_everything(cfg.seed, workers=True)
    warnings.filterwarnings("ignore", ".*have no `validation_step`.*")  # a GAN has no validation loss
    data = instantiate(cfg.data)
    networks = {role: load_network(cfg[role], role) for role in ("generator", "discriminator")}
    module = instantiate(cfg.gan, **networks, seed=cfg.seed)
    module.feed_from(data)
    images = try_generator(networks["generator"])
    try_discriminator(module, data)
    module.train()
    judge = None if cfg.judge is None else load_classifier(cfg.judge, "judge", images).network
    scores = FidelityScores(judge, **cfg.scores)
    trainer = trainer_of(cfg, folder, SampleGrid(folder, cfg.samples_every), scores)
    fit(trainer, module, data, cfg.ckpt_path)
    figures = {"num_images": module.num_images, **scores.figures}
    if trainer.is_global_zero:
        export(folder, "generator", module.ema_generator, cfg, figures)
    return figures


@torch.no_grad()
def try_discriminator(module: GANModule, data: FaceData) -> None:
    """Show the discriminator two of the data's images and two generated ones.

    Raises:
        ValueError: it cannot take them, or gives something else than one logit for each; or more targets shall be shown
            to it than the data have.
    """
    if module.condition > len(data.names):
        raise ValueError(f"gan.condition={module.condition} must be at most {len(data.names)}, the data's targets")
    generated = module.generator(torch.zeros(2, module.z_dim))
    for images, key in ((data.example, "data"), (generated, "generator")):
        targets = torch.zeros(2, module.condition)
        logits = attempt(
            lambda x, y=targets: module.discriminate(module.discriminator, x, y), images, "discriminator", "images"
        )
        if logits.shape != (2,):
            raise ValueError(f"discriminator.network must give one logit for each of the {key}'s images")


def train_classifier(cfg: DictConfig) -> dict[str, Any]:
    """Train an attribute classifier; the run folder gets its weights, `metrics.json`, events and checkpoints."""
    folder = output_folder()
    seed_everything(cfg.seed, workers=True)
    data = instantiate(cfg.data)
    cfg.classifier.attributes = list(data.names)  # what the data have is what the network learns
    classifier = load_classifier(cfg.classifier, "classifier", data.example)
    balanced = {"rates": data.rates} if cfg.balanced else {}
    network = classifier.network.train()
    module = instantiate(cfg.training, network=network, names=classifier.names, scales=data.scales, **balanced)
    trainer = trainer_of(cfg, folder)
    fit(trainer, module, data, cfg.ckpt_path)
    trainer.test(module, data, verbose=False)
    figures = {"num_images": cfg.max_images, **{f"test_{name}": value for name, value in means(module.figures).items()}}
    if trainer.is_global_zero:
        about = {**figures, "attributes": module.figures, "scales": data.scales}
        export(folder, "classifier", module.network, cfg, about)
    return figures


def trainer_of(cfg: DictConfig, folder: Path, *callbacks: Callback) -> Trainer:
    """The Trainer of a training run: one epoch, which is the whole stream of images; TensorBoard in the run folder."""
    return instantiate(
        cfg.trainer,
        precision=precision_of(cfg.trainer.precision, cfg.trainer.accelerator),
        max_epochs=1,
        use_distributed_sampler=False,
        logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
        enable_checkpointing=False,  # Lightning's looks at the clock only under automatic optimization
        callbacks=[
            LastCheckpoint(folder / "checkpoints" / "last.ckpt", float(cfg.checkpoint_minutes)),
            SeededSteps(cfg.seed),
            *callbacks,
        ],
        _convert_="all",
    )


def fit(trainer: Trainer, module: LightningModule, data: LightningDataModule, ckpt_path: str | None) -> None:
    """Train, or go on from a checkpoint: of an interrupted run, or of one that ended and gets a larger `max_images`.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, not one of a training run, or of other networks.
        InterruptedError: SIGTERM came; the state was saved.
    """
    if ckpt_path is not None:
        content = read(Path(ckpt_path), f"ckpt_path={ckpt_path}")
        if not {"epoch", "state_dict"} <= set(content):
            raise ValueError(f"ckpt_path={ckpt_path} is not a checkpoint of a training run; weights go to `checkpoint`")
        check_same(content["state_dict"], module.state_dict(), f"ckpt_path={ckpt_path}", "this run's networks")
        # An epoch is the whole stream. To Lightning a run that ended has had its epoch, so what is left is another one.
        trainer.fit_loop.max_epochs = content["epoch"] + 1
    try:
        trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    except SIGTERMException as error:
        callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        saved = next(callback.path for callback in callbacks if isinstance(callback, LastCheckpoint))
        raise InterruptedError(f"terminated; ckpt_path={saved} goes on") from error


def precision_of(wanted: str, accelerator: str) -> str:
    """`auto` is bfloat16 where the hardware multiplies it faster than float32, and float32 elsewhere.

    That is a GPU since Ampere, or a CPU with AMX; with AVX-512's bfloat16 alone, training takes 1.4 times as long.
    """
    if wanted != "auto":
        return wanted
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if torch.cpu._is_amx_tile_supported() else "32-true"


def export(folder: Path, name: str, network: nn.Module, cfg: DictConfig, figures: dict[str, Any]) -> None:
    """Write a network's weights, with the resolved config and the figures beside them."""
    config = OmegaConf.to_container(cfg, resolve=True)
    save_weights(network, folder / f"{name}.safetensors", {"config": config, "figures": figures})
    write_json(folder / "metrics.json", figures)
