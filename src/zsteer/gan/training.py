"""A GAN's training run: seed, instantiate, fit, and the averaged generator with its figures."""

import warnings
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import seed_everything

from zsteer.data.faces import FaceData
from zsteer.gan.callbacks import FidelityScores, SampleGrid
from zsteer.gan.cuda_graphs import check_one_gpu
from zsteer.gan.module import GANModule
from zsteer.networks.loading import attempt, load_classifier, load_network, try_generator
from zsteer.training.checkpoint import resumed_from
from zsteer.training.fitting import chosen_callbacks, ending_between_steps, trainer_of
from zsteer.training.loggers import log_figures, log_settings, open_loggers
from zsteer.training.results import Trained


def train(cfg: DictConfig, folder: Path | None) -> Trained:
    """Train a GAN; the folder gets `generator.safetensors` (the average), `samples.png`, events and checkpoints."""
    seed_everything(cfg.seed, workers=True)
    warnings.filterwarnings("ignore", ".*have no `validation_step`.*")  # a GAN has no validation loss
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    data = instantiate(cfg.data)
    networks = {role: load_network(cfg[role], role) for role in ("generator", "discriminator")}
    module = instantiate(cfg.gan, **networks, seed=cfg.seed)
    if module.generator is not networks["generator"]:  # now it takes a condition, or draws descriptions
        config["generator"]["network"] = module.generator.config(config["generator"]["network"])
    module.feed_from(data)
    images = try_generator(networks["generator"], trained=True)
    judge = None if cfg.judge is None else load_classifier(cfg.judge, "judge", images).network
    scores, grid = FidelityScores(judge, **cfg.scores), SampleGrid(folder, cfg.samples_every)
    callbacks = chosen_callbacks(cfg, scores.monitored)
    resumed = resumed_from(cfg.ckpt_path, module)
    with open_loggers(cfg, folder) as loggers:
        log_settings(loggers, config)
        trainer = trainer_of(cfg, folder, loggers, grid, scores, *callbacks, resumed=resumed)
        if module.cuda_graphs:
            check_one_gpu(trainer)
        try_discriminator(module, data)  # which makes the data, if need be: everything else is known to fit
        module.prepare(data, fresh=resumed is None)
        module.train()
        with ending_between_steps(trainer):
            trainer.fit(module, data, ckpt_path=cfg.ckpt_path, weights_only=True)
        metrics = {"num_images": module.num_images, **scores.figures}
        note = None if scores.figures else "no scores: neither a judge nor scores.inception to compare samples by"
        trained = Trained("generator", module.ema_generator.eval(), metrics, config, image=grid.grid, note=note)
        if folder is not None and trainer.is_global_zero:
            trained.write(folder)
        log_figures(loggers, config, metrics, module.num_images)
    return trained


@torch.no_grad()
def try_discriminator(module: GANModule, data: FaceData) -> None:
    """Show the discriminator two of the data's images and two generated ones.

    Raises:
        ValueError: they differ in size; it cannot take them, or gives something else than one logit for each.
    """
    generated = module.generator(torch.zeros(2, module.z_dim))
    if generated.shape[1:] != data.example.shape[1:]:
        made, given = ("×".join(map(str, images.shape[2:])) for images in (generated, data.example))
        raise ValueError(
            f"generator.network makes images of {made} pixels, and the data's have {given}; they must agree, as "
            "generator=r3gan and r3gan_small see to"
        )
    for images, key in ((data.example, "data"), (generated, "generator")):
        targets = torch.zeros(2, module.num_conditions)
        logits = attempt(
            lambda x, y=targets: module.discriminate(module.discriminator, x, y),
            images,
            "discriminator",
            "images",
            trained=True,
        )
        if logits.shape != (2,):
            raise ValueError(f"discriminator.network must give one logit for each of the {key}'s images")
