"""GAN training: through Lightning against a plain loop of the same operations, and against a loop as one finds them.

Drawn faces, the tutorial's generator and a plain discriminator; medians of alternating rounds in one process.
"""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from data import write_celeba
from hydra.utils import instantiate
from timing import alternate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import flop_registry
from torchvision import transforms
from torchvision.io import decode_jpeg

from zsteer.app.composition import compose
from zsteer.data import procedural
from zsteer.data.faces import FaceData, scale
from zsteer.gan.losses import bce_discriminator, bce_generator, zero_centred_penalty
from zsteer.gan.module import GANModule
from zsteer.networks.dcgan import Discriminator
from zsteer.networks.tutorial import Generator
from zsteer.training.fitting import trainer_of
from zsteer.training.loggers import open_loggers

NUM_STEPS = 12
QUIET = "+trainer.enable_progress_bar=false"
FACES = ("data.num_train=2000", "data.num_val=8", "data.num_test=8")


def made(root: str, *words: str, num_steps: int = NUM_STEPS) -> tuple[GANModule, FaceData]:
    """The module and data of a config of `train_gan`."""
    cfg = compose("train_gan", [*FACES, f"data.root={root}", *words])
    networks = {role: instantiate(cfg[role].network).train() for role in ("generator", "discriminator")}
    module, data = instantiate(cfg.gan, **networks, seed=0), instantiate(cfg.data)
    module.feed_from(data)
    module.prepare(data)
    data.max_images = num_steps * data.batch_size * module.discriminator_steps
    return module, data


def lightning(root: str, *words: str, device: str = "cpu", num_steps: int = NUM_STEPS) -> Callable[[], None]:
    """Training as `train_gan` does it: with its start, logger, seeding, and the checkpoint at the end."""
    module, data = made(root, *words, num_steps=num_steps)
    quick = (f"trainer={device}", "trainer.precision=32-true", "+trainer.enable_model_summary=false", QUIET)
    cfg = compose("train_gan", [*quick, f"run_folder={root}"])

    def train() -> None:
        with open_loggers(cfg, Path(root)) as loggers:
            trainer_of(cfg, Path(root), loggers).fit(module, data)

    return train


def plain(module: GANModule, data: FaceData) -> Callable[[], None]:
    """The module's own steps in a loop: no Trainer, hooks, logging or progress."""
    optimizers = module.configure_optimizers()
    vars(module).update(  # what stands in for Lightning
        manual_backward=lambda loss: loss.backward(),
        optimizers=lambda: optimizers,
        log_dict=lambda *_, **__: None,
        _trainer=SimpleNamespace(world_size=1, global_rank=0),
    )

    def train() -> None:
        for images, targets in data.train_dataloader():
            module.training_step((scale(images), targets), 0)

    return train


class Photographs(Dataset):
    """JPEG files, decoded one at a time."""

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("*.jpg"))
        steps = [transforms.ConvertImageDtype(torch.float32), transforms.Resize(64), transforms.CenterCrop(64)]
        self.transform = transforms.Compose([*steps, transforms.Normalize([0.5] * 3, [0.5] * 3)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = decode_jpeg(torch.frombuffer(bytearray(self.files[index].read_bytes()), dtype=torch.uint8))
        assert isinstance(image, torch.Tensor)  # of one file; of a list of them it is a list
        return self.transform(image)


def found(folder: Path, batch_size: int, penalty_every: int) -> Callable[[], None]:
    """A loop as tutorials have it: JPEGs, NCHW, float32, plain Adam, gradients of the discriminator in both steps."""
    generator, discriminator = Generator(), Discriminator()
    average = copy.deepcopy(generator)
    adams = [torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.99), foreach=False) for n in (generator, discriminator)]
    loader = DataLoader(Photographs(folder), batch_size, shuffle=True, drop_last=True)

    def train() -> None:
        for step, real_images in zip(range(NUM_STEPS), loader, strict=False):
            real_images.requires_grad_()
            fake_images = generator(torch.randn(batch_size, 64))
            real, fake = discriminator(real_images), discriminator(fake_images.detach())
            loss = bce_discriminator(real, fake)
            if step % penalty_every == 0:
                loss = loss + 0.1 * penalty_every * zero_centred_penalty(real, real_images)
            _step(adams[1], loss)
            _step(adams[0], bce_generator(discriminator(generator(torch.randn(batch_size, 64)))))
            with torch.no_grad():
                for old, new in zip(average.parameters(), generator.parameters(), strict=True):
                    old.mul_(0.99).add_(new, alpha=0.01)

    return train


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


class Arithmetic(TorchDispatchMode):
    """Counts floating-point operations, also of double backward; torch's own counter takes grouped ones for dense."""

    def __init__(self):
        super().__init__()
        self.flop = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run an operation and count it."""
        result = operation(*args, **(kwargs or {}))
        if operation._overloadpacket is torch.ops.aten.convolution_backward:
            gradient, images, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[-1]
            places = images.numel() if transposed else gradient.numel()
            self.flop += 2 * places * (weight.numel() // len(weight)) * sum(wanted[:2])
        elif count := flop_registry.get(operation._overloadpacket):
            self.flop += count(*args, **(kwargs or {}), out_val=result)
        return result


def arithmetic(root: str, preset: str) -> tuple[float, float]:
    """Floating-point operations for an image that a preset is shown, and for all of its images."""
    module, data = made(root, f"experiment={preset}", "data=procedural", "data.batch_size=2")
    data.max_images = 2 * module.discriminator_steps
    train = plain(module, data)
    with Arithmetic() as counted:
        train()
    each = counted.flop / data.max_images
    return each, each * compose("train_gan", [f"experiment={preset}"]).max_images


def waiting(root: str) -> float:
    """Share of a step's time that goes to waiting for its images."""
    module, data = made(root)
    train = lightning(root)
    train()
    started = time.perf_counter()
    train()
    total = time.perf_counter() - started
    loader = data.train_dataloader()
    started = time.perf_counter()
    for _ in loader:
        pass
    return (time.perf_counter() - started) / total


def on_gpu(root: str, num_steps: int = 1000) -> None:
    """Print what capturing a step's kernels is worth."""
    words = ("gan_loss=wgan_gp", "gan.discriminator_steps=1", "generator.network.z_dim=256", "data.batch_size=32")
    trainings = [
        lightning(root, *words, f"gan.cuda_graphs={captured}", device="gpu", num_steps=num_steps)
        for captured in (False, True)
    ]
    launched, captured = alternate(*trainings, rounds=2)
    print(f"gan.cuda_graphs=true: {num_steps / captured:.0f} iterations/s, {launched / captured:.1f} times as many")


def main() -> None:
    """Print every ratio."""
    warnings.filterwarnings("ignore")
    if torch.cuda.is_available():
        with tempfile.TemporaryDirectory() as root:
            on_gpu(root)
    with tempfile.TemporaryDirectory() as root:
        for loss, size in {"bce": 64, "hinge": 64, "wgan_gp": 16, "r3gan": 64}.items():
            words = (f"gan_loss={loss}", "discriminator.network.hidden_dim=32", f"data.batch_size={size}")
            ours, theirs = alternate(lightning(root, *words), plain(*made(root, *words)), rounds=3)
            print(f"{loss}: {theirs / ours:.2f} times the speed of a plain loop of the same operations")

        images, labels, _ = (part.numpy() for part in procedural.draw(torch.arange(NUM_STEPS * 64)))
        write_celeba(Path(root), images, labels, len(images))
        photographs = Path(root) / "celeba" / "img_align_celeba"
        naive = [found(photographs, 64, every) for every in (1, 4)]
        ours, *theirs = alternate(lightning(root), *naive, rounds=3)
        print(f"defaults: {NUM_STEPS * 64 / ours:.0f} images/s,", end=" ")
        print(
            "{:.1f} times the usual loop's ({:.1f} with its penalty every 4 steps too)".format(
                *(t / ours for t in theirs)
            )
        )
        print(f"waiting for data: {waiting(root):.1%}")

        batches = [lightning(root, f"data.batch_size={size}") for size in (16, 64, 128)]
        for size, seconds in zip((16, 64, 128), alternate(*batches, rounds=2), strict=True):
            print(f"batches of {size}: {NUM_STEPS * size / seconds:.0f} images/s")
        for name, words in {
            "tutorial, half as wide": ("generator.network.hidden_dim=32", "discriminator.network.hidden_dim=32"),
            "sngan_small": ("experiment=sngan_small",),
            "r3gan_small": ("experiment=r3gan_small",),
        }.items():
            (seconds,) = alternate(lightning(root, *words, "data.batch_size=64"), rounds=2)
            parameters = sum(p.numel() for p in made(root, *words)[0].generator.parameters())
            print(f"{name} ({parameters / 1e6:.2f} M): {NUM_STEPS * 64 / seconds:.0f} images/s")
        words = ("data.batch_size=16", "gan_loss=wgan_gp", "gan.discriminator_steps=1")
        told = "gan.condition=[Smiling,Eyeglasses,hair_length]"
        options = {
            "condition": (told,),
            "condition, supervised": (told, "regularizer=supervised"),
            "supervised numbers": (
                "regularizer=supervised",
                "gan.regularizers.supervised.indices={Smiling:0,Eyeglasses:1,hair_length:2}",
            ),
            "description": ("description=classifier",),
            **{name: (f"regularizer={name}",) for name in ("infogan", "hessian_penalty", "orojar")},
        }
        bare, *others = alternate(
            lightning(root, *words), *(lightning(root, *words, *more) for more in options.values()), rounds=3
        )
        for name, seconds in zip(options, others, strict=True):
            print(f"{name}: {seconds / bare:.2f} times the cost of a step without")
        for preset in ("celeba_tutorial_gan", "celeba_sngan", "celeba_r3gan"):
            each, all_images = arithmetic(root, preset)
            print(f"{preset}: {each / 1e9:.1f} GFLOP an image, {all_images / 1e15:.3g} PFLOP in all")


if __name__ == "__main__":
    main()
