"""Put trained networks into the package, as the last step of `make bundle`: `python -m zsteer.app.bundling DIR`."""

import json
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from zsteer.app.composition import compose
from zsteer.app.selftest import save_steered
from zsteer.networks.checkpoints import save_weights
from zsteer.networks.fingerprints import fingerprint
from zsteer.networks.loading import load_network, load_networks
from zsteer.steering.reference import BUNDLED, compute_logits, save_logits

FOLDER = BUNDLED.parent
# Where each network's training run keeps its weights, and the config group that described it.
SOURCES = {
    "generator": ("generator/generator.safetensors", "generator"),
    "tutorial_generator": ("tutorial_sharper/generator.safetensors", "generator"),
    "classifier": ("classifier/classifier.safetensors", "classifier"),
    "judge": ("judge/classifier.safetensors", "classifier"),
    "second_judge": ("second_judge/classifier.safetensors", "classifier"),
    "regressor": ("regressor/classifier.safetensors", "classifier"),
    "judge_regressor": ("judge_regressor/classifier.safetensors", "classifier"),
}
# Beside a generator: what the judge sees in its samples, from `evaluate`.
RATES = "rates/metrics.json"


def bundle(trained: Path) -> None:
    """Write float16 weights, each with its training's config and figures, and what is computed from them once.

    That is the reference logits of the pairs, and the steering that every installation has to repeat.
    """
    for name, (path, group) in SOURCES.items():
        _pack(name, trained, group, path)
    save_steered()
    for stale in BUNDLED.glob("*.safetensors"):
        stale.unlink()
    # A label; a factor, for which the regressors join in; the published noise.
    for words in ("target=Smiling", "target=age", "generator=tutorial"):
        networks = load_networks(compose("steer", [words]))
        assert networks.judge is not None
        scorers = [networks.classifier.network, networks.judge.network]
        if words == "target=Smiling":
            scorers.append(load_network(compose("compare").second_judge, "second_judge"))
        for scorer, logits in zip(scorers, compute_logits(networks.generator, scorers), strict=True):
            save_logits(BUNDLED / f"{fingerprint(networks.generator)}-{fingerprint(scorer)}.safetensors", logits)


def _pack(name: str, trained: Path, group: str, path: str) -> None:
    """Write one network's half-precision weights."""
    source = trained / path
    # Where this checkout lies is nobody else's business.
    about = json.loads(source.with_suffix(".json").read_text(encoding="utf-8").replace(str(FOLDER), FOLDER.name))
    if group == "generator":
        about["figures"] |= json.loads((source.parent / RATES).read_text(encoding="utf-8"))
    target = FOLDER / f"{name}.safetensors"
    section = OmegaConf.create(about["config"][group])
    assert isinstance(section, DictConfig)
    section.checkpoint = str(source)
    save_weights(load_network(section, group), target, about, torch.float16)
    print(f"{target}: {sum(tensor.numel() for tensor in load_file(target).values()):,} numbers")


if __name__ == "__main__":
    bundle(Path(sys.argv[1]))
