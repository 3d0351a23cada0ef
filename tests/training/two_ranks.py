"""What test_distributed.py runs as one process and as two: each loss's GAN, and a classifier, for a few steps.

Usage: python [-m torch.distributed.run --nproc-per-node 2] two_ranks.py FOLDER DATA_ROOT
"""

import os
import sys
import warnings
from pathlib import Path
from unittest import mock

import torch
from pytorch_lightning import Trainer
from safetensors.torch import save_file

from zsteer.app import commands
from zsteer.app.composition import compose
from zsteer.gan.callbacks import SampleGrid

COMMON = [
    *("data.num_train=48", "data.num_val=10", "data.num_test=21", "data.batch_size=8", "max_images=16"),
    *("trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=64-true", "+trainer.enable_progress_bar=false"),
    "+trainer.enable_model_summary=false",
]
# Of double precision, so that two ranks' sums differ from one's by rounding only; without batch norm, whose statistics
# are each rank's own.
PLAIN = [
    *("generator=r3gan", "generator.network.widths=[8,8,8,8,8]", "generator.network.blocks=1"),
    *("discriminator.network.hidden_dim=4", "scores.num_samples=9", "judge.regressor=null"),
]
RUNS = {
    "bce": ("train_gan", [*PLAIN, "gan_loss=bce"]),
    "hinge": ("train_gan", [*PLAIN, "gan_loss=hinge", "gan.clip_norm=1", "gan.accumulate=4"]),
    "wgan_gp": ("train_gan", [*PLAIN, "gan_loss=wgan_gp", "gan.discriminator_steps=2"]),
    "r3gan": ("train_gan", [*PLAIN, "gan_loss=r3gan", "description=classifier", "gan.description.num_steps=20"]),
    "condition": (
        "train_gan",
        [
            *PLAIN,
            "gan.condition=[Smiling,hair_length]",
            "regularizer=infogan",
            "gan.regularizers.infogan.head.hidden_dim=8",
        ],
    ),
    "penalties": (
        "train_gan",
        [
            *PLAIN,
            "gan.condition=[Male]",
            "regularizer=[supervised,hessian_penalty,orojar]",
            "gan.regularizers.supervised.indices={Smiling:0}",
        ],
    ),
    "batch_norm": (
        "train_gan",
        ["generator.network.hidden_dim=2", "discriminator.network.hidden_dim=2", "scores.num_samples=9"],
    ),
    "classifier": ("train_classifier", ["classifier=residual", "classifier.network.hidden_dim=8"]),
}


def main(folder: Path, root: str) -> None:
    """Train everything; each rank writes its weights."""
    warnings.filterwarnings("ignore")
    rank, world_size = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    modules, fit = [], Trainer.fit
    mock.patch.object(Trainer, "fit", lambda *args, **more: (modules.append(args[1]), fit(*args, **more))).start()
    mock.patch.object(SampleGrid, "act").start()  # a picture by one rank, which takes as long as the training
    for name, (task, words) in RUNS.items():
        own = folder / name
        where = (f"data.root={root}", f"run_folder={own}")
        cfg = compose(task, [*COMMON, *words, *where, f"trainer.devices={world_size}"])
        getattr(commands, task).perform(cfg, own)
        state = {key: tensor.contiguous() for key, tensor in modules.pop().state_dict().items()}
        save_file(state, own / f"rank{rank}.safetensors")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
