"""Global directions: for each attribute one vector of the noise that changes it on average.

All of them need only what is known already: the classifier's logits over the 2,048 reference samples, and the
generator's own weights.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zsteer.networks.inference import num_free, z_dim_of
from zsteer.settings import SOURCES
from zsteer.steering.metrics import sigma_of
from zsteer.steering.reference import reference_noise

NUM_COMPONENTS = 32  # of an unsupervised source, the strongest


def check_source(source: str, key: str) -> None:
    """
    Raises:
        ValueError: `source` is neither one of `SOURCES` nor a file's path.
    """
    if source not in SOURCES and not Path(str(source)).is_file():
        raise ValueError(f"{key}={source} must be one of {', '.join(SOURCES)}, or a .safetensors file that exists")


def find_directions(
    source: str, generator: nn.Module, reference: Float[Tensor, "samples k"], key: str = "method.source"
) -> Float[Tensor, "k z_dim"]:
    """The direction of each attribute in the free numbers of the noise, pointing to where it is present.

    Its length is the rise of the attribute's logit along it, in σ for each unit of noise.

    Args:
        source: `gradient`, the classifier's mean gradient; `boundary`, the normal of a linear boundary between samples
            with and without (Shen et al. 2020, InterFaceGAN); `sefa` and `ganspace`, whichever of the generator's own
            components moves the attribute most; `axis`, whichever single number of the noise does; `random`, a random
            vector, for comparison; or a file's path.
        reference: the classifier's logits over the reference samples.
        key: of the source in the config, which errors name.

    Raises:
        ValueError: `source` is a file without such directions, or the generator has no first layer to take them from.
    """
    noise = reference_noise(generator)[:, : num_free(generator)]
    slopes = mean_gradients(noise, reference)
    if source == "gradient":
        return slopes
    if source == "boundary":
        normals = boundaries(noise, reference)
        return normals * (normals * slopes).sum(dim=1, keepdim=True)
    if source == "random":
        vectors = F.normalize(torch.randn(slopes.shape, generator=torch.Generator().manual_seed(0)), dim=1)
        return vectors * (vectors * slopes).sum(dim=1, keepdim=True)
    own = components(source, generator)
    return read_directions(Path(source), slopes, key) if own is None else nearest(own, slopes)


def components(source: str, generator: nn.Module) -> Float[Tensor, "m z_dim"] | None:
    """The generator's own directions of an unsupervised source, unit vectors, the strongest first; None of another."""
    if source == "axis":
        return torch.eye(num_free(generator))
    if source == "sefa":
        return sefa(generator)[:NUM_COMPONENTS]
    return ganspace(generator, reference_noise(generator)) if source == "ganspace" else None


def mean_gradients(
    noise: Float[Tensor, "samples z_dim"], logits: Float[Tensor, "samples k"]
) -> Float[Tensor, "k z_dim"]:
    """E ∇c / σ of each logit c, by regressing it on the noise.

    For Gaussian noise the regression's slope E[c(z) z] is the mean gradient E[∇c(z)] (Stein 1981), without one backward
    pass.
    """
    centred = (logits.double() - logits.double().mean(dim=0)) / sigma_of(logits)
    inputs = noise.double() - noise.double().mean(dim=0)
    return torch.linalg.lstsq(inputs, centred).solution.T.to(logits.dtype)


def boundaries(
    noise: Float[Tensor, "samples z_dim"], logits: Float[Tensor, "samples k"], decay: float = 1e-2
) -> Float[Tensor, "k z_dim"]:
    """Unit normals of logistic regressions of each attribute's presence (logit > 0) on the noise, all at once.

    Args:
        decay: weight of ‖w‖²/2 beside the mean cross entropy, without which separable samples have no solution.
    """
    present = (logits > 0).double()
    inputs = F.pad(noise.double(), (0, 1), value=1.0)
    weights = torch.zeros(logits.shape[1], inputs.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = F.binary_cross_entropy_with_logits(inputs @ weights.T, present, reduction="sum") / len(present)
        total = entropy + decay / 2 * weights[:, :-1].square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return F.normalize(weights.detach()[:, :-1], dim=1).to(logits.dtype)


def sefa(generator: nn.Module) -> Float[Tensor, "z_dim z_dim"]:
    """The eigenvectors of AᵀA, the strongest first, A being the first layer's weight (Shen & Zhou 2021, eq. 6).

    A flow before that layer counts as the identity.
    """
    layer = first_layer(generator)
    weight = layer.weight.detach().double()
    # Linear weights are [out, in]; those of a transposed convolution [in, out, height, width].
    per_input = (weight.T if isinstance(layer, nn.Linear) else weight.flatten(1))[: num_free(generator)]
    _, vectors = torch.linalg.eigh(per_input @ per_input.T)
    return vectors.T.flip(0).float()


@torch.no_grad()
def ganspace(generator: nn.Module, noise: Float[Tensor, "samples z_dim"]) -> Float[Tensor, "m z_dim"]:
    """Principal components of the first layer's activations, carried to the noise by regression (Härkönen et al. 2020).

    Unit vectors, the strongest first.
    """
    layer, seen = first_layer(generator), []
    handle = layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.flatten(1)))
    try:
        for z in noise.split(256):
            generator(z)
    finally:
        handle.remove()
    activations = torch.cat(seen)
    activations -= activations.mean(dim=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the randomised decomposition
        _, _, axes = torch.pca_lowrank(activations, min(NUM_COMPONENTS, noise.shape[1]), center=False, niter=4)
    coordinates = activations @ axes
    free = noise[:, : num_free(generator)].double()
    return F.normalize(torch.linalg.lstsq(coordinates.double(), free - free.mean(dim=0)).solution, dim=1).float()


def first_layer(generator: nn.Module) -> nn.Linear | nn.ConvTranspose2d:
    """The layer that takes the noise.

    Raises:
        ValueError: the first layer with weights takes something else.
    """
    for layer in generator.modules():
        if isinstance(layer, nn.Linear) and layer.in_features == z_dim_of(generator):
            return layer
        if isinstance(layer, nn.ConvTranspose2d) and layer.in_channels == z_dim_of(generator):
            return layer
    raise ValueError(
        f"generator.network={type(generator).__name__} has no linear layer or transposed convolution of z_dim inputs,"
        " from which sefa and ganspace take directions; use gradient or boundary"
    )


def nearest(own: Float[Tensor, "m z_dim"], slopes: Float[Tensor, "k z_dim"]) -> Float[Tensor, "k z_dim"]:
    """For each attribute the component along which its logit rises most, turned so that it rises."""
    rise = slopes @ own.T
    best = rise.abs().argmax(dim=1)
    return own[best] * rise.gather(1, best[:, None])


def read_directions(path: Path, slopes: Float[Tensor, "k z_dim"], key: str) -> Float[Tensor, "k z_dim"]:
    """The tensor `directions` of a safetensors file.

    Raises:
        ValueError: not such a file, or the tensor has another shape, or is not finite.
    """
    try:
        directions = load_file(path)["directions"]
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{key}={path} is no .safetensors file with a tensor 'directions'") from error
    if directions.shape != slopes.shape:
        raise ValueError(
            f"{key}={path} has directions of shape {list(directions.shape)}; it must be {list(slopes.shape)},"
            " one for each of the classifier's outputs"
        )
    directions = directions.to(slopes.dtype)
    if not directions.isfinite().all():
        raise ValueError(f"{key}={path} has NaN or infinite values")
    return directions
