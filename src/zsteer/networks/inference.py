"""Trained networks at work: frozen for inference, their features, their noise."""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zsteer.networks.conditional import ConditionalGenerator, condition_of
from zsteer.settings import JUDGES, as_typed

BATCH_SIZE = 128  # images at a time, where only the memory cares


def z_dim_of(generator: Any) -> int:
    """The length of the noise vectors that a generator takes.

    Raises:
        ValueError: it does not say.
    """
    z_dim = getattr(generator, "z_dim", None)
    if not isinstance(z_dim, int):
        raise ValueError(f"generator.network={type(generator).__name__} must have an integer attribute z_dim")
    return z_dim


def num_free(generator: Any) -> int:
    """How many of the first numbers of a generator's noise are standard normal; the others are its condition."""
    return z_dim_of(generator) - len(condition_of(generator))


def noise_of(
    generator: Any,
    num: int,
    seed: int | torch.Generator,
    condition: Mapping[str, Any] | None = None,
) -> Float[Tensor, "num z_dim"]:
    """Noise of a generator's prior: standard normal, and beside it what the generator is conditioned on.

    Args:
        seed: what alone decides the noise; or a source of random numbers, of which it takes the next.
        condition: some of a conditional generator's attributes and their values; the others are as in the data.

    Raises:
        ValueError: the generator has no such attribute, or a value is out of range.
    """
    random = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    if isinstance(generator, ConditionalGenerator):
        return generator.draw(num, random, condition or {})
    require_unconditioned(condition)
    return torch.randn(num, z_dim_of(generator), generator=random)


def require_unconditioned(condition: Mapping[str, Any] | None) -> None:
    """
    Raises:
        ValueError: a condition, for a generator that takes none.
    """
    if condition:
        remedy = f"train one with gan.condition=[{','.join(condition)}]"
        raise ValueError(f"{as_typed('condition', condition)}: the generator takes none; {remedy}")


@torch.no_grad()
def images_of(generator: nn.Module, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n 3 h w"]:
    """A generator's images in [-1, 1] of some noise, in float32, on the CPU."""
    device = best_device()
    network = frozen(generator, torch.float32, device)
    return torch.cat([network(z.to(device, torch.float32)).cpu() for z in noise.split(BATCH_SIZE)])


def channels_last(network: nn.Module) -> nn.Module:
    """Lay out the weights of two-dimensional convolutions as such convolutions are fastest, in place.

    Other weights have no such layout: `Module.to` fails with those of five dimensions.
    """
    for tensor in chain(network.parameters(), network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network


def copied(network: nn.Module) -> nn.Module:
    """A deep copy, of networks with `weight_norm` too: torch refuses the weights that its hook computes."""
    computed = {
        id(value): value.detach().clone()
        for module in network.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(network, computed)


def frozen(network: nn.Module, dtype: torch.dtype, device: torch.device | str = "cpu") -> nn.Module:
    """A copy of `network` for inference: eval mode, no gradients for weights, batch norm folded into convolutions.

    Folding is done in float64, so that in float64 the copy equals the original to rounding. Freezing a
    frozen copy to the same form returns it.
    """
    form = (dtype, torch.device(device))
    if getattr(network, "frozen_form", None) == form:
        return network
    network = _cast(copied(network).eval().requires_grad_(False), torch.float64)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold_batch_norm(module)
    network = channels_last(_cast(network, dtype).to(device))
    network.__dict__["frozen_form"] = form  # beside parameters and submodules
    return network


def _cast(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Have a network compute in `dtype`, in place; `Module.to` would take complex numbers' imaginary parts away."""
    for tensor in chain(network.parameters(), network.buffers()):
        if tensor.is_complex():
            tensor.data = tensor.data.to(torch.promote_types(dtype, torch.float32).to_complex())
        elif tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    return network


def _fold_batch_norm(layers: nn.Sequential) -> None:
    for i in range(len(layers) - 1):
        conv, norm = layers[i], layers[i + 1]
        # Of just these classes: subclasses compute something else, and so may hooks, which spectral norm hangs on.
        if type(conv) not in (nn.Conv2d, nn.ConvTranspose2d) or type(norm) is not nn.BatchNorm2d:
            continue
        assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d)
        hooked = any(layer._forward_pre_hooks or layer._forward_hooks for layer in (conv, norm))
        transpose = isinstance(conv, nn.ConvTranspose2d)
        if norm.track_running_stats and not hooked and not (transpose and conv.groups > 1):
            layers[i] = fuse_conv_bn_eval(conv, norm, transpose)
            layers[i + 1] = nn.Identity()


def pooled_features(
    network: nn.Module, images: Float[Tensor, "n 3 h w"], role: str = "judge"
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
    """A classifier's last feature map of more than one position, averaged over the positions; and its logits.

    Raises:
        ValueError: it has none.
    """
    maps: list[Tensor] = []

    def keep(_layer: nn.Module, _inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            maps[:] = [output]

    handles = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        logits = network(images)
    finally:
        for handle in handles:
            handle.remove()
    if not maps:
        raise ValueError(
            f"{role}.network={type(network).__name__} has no feature map to compare images by; use another {role}"
        )
    return maps[0].mean(dim=(2, 3)), logits


def check_finite(role: str, values: Tensor) -> None:
    """
    Raises:
        ValueError: some of a network's images or logits are NaN or infinite.
    """
    if not values.isfinite().all():
        what = "images" if role == "generator" else "logits"
        remedy = f"use another, or {role}=none" if role in JUDGES else "use another"
        raise ValueError(f"{role}.network gives NaN or infinite {what}; {remedy}")


def best_device() -> str:
    """Where to evaluate: a CUDA device if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
