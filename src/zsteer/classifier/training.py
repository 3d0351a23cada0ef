"""A classifier's training run: seed, instantiate, fit, test, and the network with its figures."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import seed_everything

from zsteer.classifier.metrics import means
from zsteer.networks.loading import load_classifier
from zsteer.training.checkpoint import resumed_from
from zsteer.training.fitting import told_of_termination, trainer_of
from zsteer.training.results import Trained


def train(cfg: DictConfig, folder: Path | None) -> Trained:
    """Train an attribute classifier; the folder gets its weights, `metrics.json`, events and checkpoints."""
    seed_everything(cfg.seed, workers=True)
    data = instantiate(cfg.data)
    cfg.classifier.attributes = list(data.names)  # what the data have is what the network learns
    classifier = load_classifier(cfg.classifier, "classifier", data.example, trained=True)
    balanced = {"rates": data.rates} if cfg.balanced else {}
    network = classifier.network.train()
    module = instantiate(cfg.training, network=network, names=classifier.names, scales=data.scales, **balanced)
    data.indices_of("test")  # without images to test on, hours of training would end in an error
    trainer = trainer_of(cfg, folder, resumed=resumed_from(cfg.ckpt_path, module))
    with told_of_termination(trainer):
        trainer.fit(module, data, ckpt_path=cfg.ckpt_path, weights_only=True)
    trainer.test(module, data, verbose=False)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    figures = {f"test_{name}": value for name, value in means(module.figures).items()}
    trained = Trained(
        "classifier",
        module.network.eval(),
        metrics={"num_images": data.num_images, **figures},
        config=config,
        details={"attributes": module.figures, "scales": data.scales},
    )
    if folder is not None and trainer.is_global_zero:
        trained.write(folder)
    return trained
