"""Further terms of a generator's loss, by which numbers of its noise come to mean something."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import OmegaConf
from torch import Tensor, nn
from tqdm import tqdm

from zsteer.data import attributes
from zsteer.data.faces import FaceData, scale
from zsteer.gan.quantiles import at_quantile, normal_cdf
from zsteer.gan.schedules import Setting
from zsteer.networks.conditional import condition_of
from zsteer.networks.inference import frozen, num_free, z_dim_of
from zsteer.networks.loading import load_classifier, trained_scales
from zsteer.settings import real_number, whole_number

NUM_QUANTILES = 4096  # images of the data whose logits tell how an attribute is distributed
BATCH_SIZE = 256


@runtime_checkable
class Regularizer(Protocol):
    """A term of the generator's loss; the weights of one that is a network are trained with the generator's.

    It may have a `weight`, a number or a schedule, by which it is multiplied, and `numbers`: those of the noise to
    which it gives a meaning.
    """

    def __call__(
        self, generator: nn.Module, noise: Float[Tensor, "n z_dim"], images: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, ""]:
        """The term, for the images that the generator made of the noise; differentiable in its weights."""
        ...


@runtime_checkable
class Prepared(Protocol):
    """A regularizer that has to know generator and data before the training."""

    def prepare(self, generator: nn.Module, data: FaceData) -> None:
        """
        Raises:
            ValueError: they do not fit.
        """
        ...


class Supervised:
    """What a classifier sees of generated images has to agree with what their noise says of its attributes.

    Of a condition that is cross entropy for a label, and the squared error for a factor (the classifier's part of
    Odena et al. 2017, AC-GAN, by a classifier that is not trained with the generator). A number z_i of the noise that
    is tied to an attribute says which quantile of it the image has: the target is F⁻¹(Φ(z_i)), F being how the
    attribute's logits are distributed over the data, and the term is the smooth L1 distance in σ. The terms of all
    attributes are added. And what else the classifier sees has to stay: in each image one tied number is drawn anew,
    and the smooth L1 distances, in σ, of the outputs that should not change with it are added too.

    Args:
        classifier: a config's section, as of `steer`.
        indices: which number of the noise is tied to which attribute, by the attributes' names.
        weight: factor of the term; a schedule may be a config's section.
        side_effects: factor, within the term, of what else changes; 0 saves a second pass.

    Raises:
        ValueError: an index out of range, one index for two attributes, or a factor below 0.
    """

    def __init__(
        self,
        classifier: Mapping[str, Any],
        indices: Mapping[str, int] | None = None,
        weight: Setting | Mapping[str, Any] = 1.0,
        side_effects: int | float = 1.0,
    ):
        self.section = OmegaConf.create(dict(classifier))
        self.indices = {attributes.canonical(name): index for name, index in (indices or {}).items()}
        for name, index in self.indices.items():
            whole_number(index, f"gan.regularizers.supervised.indices.{name}", 0)
        self.numbers = frozenset(self.indices.values())
        if len(self.numbers) < len(self.indices):
            raise ValueError(
                f"gan.regularizers.supervised.indices={dict(self.indices)} must give each attribute a number of its own"
            )
        self.weight: Setting = instantiate(weight) if isinstance(weight, Mapping) else weight
        self.side_effects = real_number(side_effects, "gan.regularizers.supervised.side_effects", minimum=0.0)

    def prepare(self, generator: nn.Module, data: FaceData) -> None:
        """
        Raises:
            ValueError: nothing to supervise, the classifier lacks an attribute, or the noise a number.
        """
        condition, free = condition_of(generator), num_free(generator)
        if not condition and not self.indices:
            raise ValueError(
                "regularizer=supervised has nothing to supervise; give gan.condition, or "
                "gan.regularizers.supervised.indices={Smiling: 0}"
            )
        for name, index in self.indices.items():
            if attributes.colliding([*condition, name]):
                raise ValueError(
                    f"gan.regularizers.supervised.indices.{name}={index}: gan.condition tells the generator of {name}; "
                    "keep one"
                )
            if index >= free:
                raise ValueError(
                    f"gan.regularizers.supervised.indices.{name}={index} must be below {free}, the numbers of the noise"
                )
        factors = [name for name in (*condition, *self.indices) if attributes.needs_regressor(self.section, name)]
        known = load_classifier(self.section, "classifier", data.example, factors[0] if factors else None)
        names = [*condition, *self.indices]
        keys = ["gan.condition"] * len(condition) + ["gan.regularizers.supervised.indices"] * len(self.indices)
        self._columns = [attributes.find(name, known.names, key) for name, key in zip(names, keys, strict=True)]
        found = [known.names[column] for column in self._columns]
        units = [self.section.regressor.scale if factors and name in known.factors else 1.0 for name in found]
        scales = [data.scales.get(data.names[attributes.find(name, data.names, "gan.condition")]) for name in condition]
        trained = self._trained_scales()
        self._labels = [scale is None for scale in scales]
        self._slope, self._shift = 1 / torch.tensor(units), torch.zeros(len(units))
        for column, (name, now) in enumerate(zip(found, scales, strict=False)):  # the condition's come first
            if now is not None:  # told in these data's σ, and seen in those of the classifier's data
                mean, deviation = trained.get(name, now)
                self._slope[column] *= deviation / now[1]
                self._shift[column] = (mean - now[0]) / now[1]
        self._network = known.network
        self._places = torch.tensor(list(self.indices.values()), dtype=torch.long)
        if self.indices:
            self._look_at(data)
            others = [set(attributes.others_of(name, known.names)) for name in self.indices]
            self._others = torch.tensor([[name in kept for name in known.names] for kept in others])

    def _trained_scales(self) -> dict[str, tuple[float, float]]:
        """Mean and deviation of the factors over the data that the classifier's networks were trained on, if known."""
        scales = trained_scales(self.section.get("checkpoint"), "classifier")
        if self.section.get("regressor"):
            scales |= trained_scales(self.section.regressor.get("checkpoint"), "classifier.regressor")
        return scales

    @torch.no_grad()
    def _look_at(self, data: FaceData) -> None:
        """How what the classifier sees is distributed over images of the data."""
        self._network = frozen(self._network, torch.float32)
        batches = data.split_batches("train", BATCH_SIZE, NUM_QUANTILES)
        shown = tqdm(batches, desc="Looking at the train images", leave=False)
        outputs = torch.cat([self._network(scale(images)) for images, _ in shown])
        self._sigma = outputs.std(dim=0).clamp_min(torch.finfo(outputs.dtype).tiny)
        self._quantiles = self._read(outputs)[:, len(self._labels) :].sort(dim=0).values

    def _read(self, outputs: Float[Tensor, "n c"]) -> Float[Tensor, "n k"]:
        """Of the classifier's outputs those of condition and indices: logits, and factors in the data's σ."""
        return outputs[:, self._columns] * self._slope.to(outputs) + self._shift.to(outputs)

    def __call__(self, generator: nn.Module, noise: Tensor, images: Tensor) -> Tensor:
        self._network = frozen(self._network, torch.float32, images.device)
        outputs = self._network(images.float()).float()  # in mixed precision too
        seen, num = self._read(outputs), len(self._labels)
        wanted = noise[:, noise.shape[1] - num :]
        term = seen.new_zeros(())
        for column, label in enumerate(self._labels):
            error = F.binary_cross_entropy_with_logits if label else F.mse_loss
            term = term + error(seen[:, column], wanted[:, column])
        if self.indices:
            quantiles, places = self._quantiles.to(seen), self._places.to(noise.device)
            sigma = quantiles.std(dim=0)
            targets = at_quantile(quantiles, normal_cdf(noise[:, places])) / sigma
            term = term + F.smooth_l1_loss(seen[:, num:] / sigma, targets, reduction="sum") / len(seen)
            if self.side_effects > 0:
                term = term + self.side_effects * self._side_effects(generator, noise, outputs)
        return term

    def _side_effects(self, generator: nn.Module, noise: Tensor, outputs: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
        """How far other outputs move as one tied number of each image is drawn anew, summed over the outputs."""
        drawn = torch.randint(len(self._places), (len(noise), 1), device=noise.device)
        moved = noise.scatter(1, self._places.to(noise.device)[drawn], torch.randn_like(noise[:, :1]))
        change = (self._network(generator(moved).float()).float() - outputs) / self._sigma.to(outputs)
        distances = F.smooth_l1_loss(change, torch.zeros_like(change), reduction="none")
        return (distances * self._others.to(noise.device)[drawn[:, 0]]).sum() / len(noise)


class InfoGAN(nn.Module):
    """Some numbers of the noise can be read from the image: −log q(c | G(z)), a bound on what both share.

    The first numbers are Gaussian codes, whose mean and variance the recognition head gives; behind them stand the
    categories of each categorical code, which is the one whose number is the largest, so that the noise stays standard
    normal (Chen et al. 2016, "InfoGAN", eq. 4). The head is trained with the generator.

    Args:
        head: makes a network from images to `n_classes` numbers.
        num_gaussian: Gaussian codes.
        categories: how many each categorical code has.
        weight: factor of the term.

    Raises:
        ValueError: no codes, or a code of one category.
    """

    def __init__(
        self,
        head: Callable[..., nn.Module],
        num_gaussian: int = 10,
        categories: Sequence[int] = (),
        weight: Setting = 1.0,
    ):
        super().__init__()
        key = "gan.regularizers.infogan"
        self.num_gaussian = whole_number(num_gaussian, f"{key}.num_gaussian", 0)
        self.categories = [whole_number(num, f"{key}.categories", 2) for num in categories]
        self.num_codes = num_gaussian + sum(self.categories)
        if self.num_codes == 0:
            raise ValueError(f"{key} has no codes; give num_gaussian or categories")
        self.numbers = frozenset(range(self.num_codes))
        self.head = head(n_classes=self.num_codes + num_gaussian)
        self.weight = weight

    def prepare(self, generator: nn.Module, data: FaceData) -> None:
        """
        Raises:
            ValueError: fewer numbers of noise than codes.
        """
        if self.num_codes > num_free(generator):
            raise ValueError(
                f"gan.regularizers.infogan has {self.num_codes} codes, which must be at most the "
                f"{num_free(generator)} numbers of the noise"
            )

    def forward(self, generator: nn.Module, noise: Tensor, images: Tensor) -> Tensor:
        read = self.head(images).float()
        num = self.num_gaussian
        mean, log_variance, logits = read[:, :num], read[:, num : 2 * num], read[:, 2 * num :]
        codes = noise[:, :num].float()
        bound = F.gaussian_nll_loss(mean, codes, log_variance.exp(), full=True, reduction="none").sum(dim=1).mean()
        scores = noise[:, num : self.num_codes].split(self.categories, dim=1)
        for given, seen in zip(scores, logits.split(self.categories, dim=1), strict=True):
            bound = bound + F.cross_entropy(seen, given.argmax(dim=1))
        return bound


class HessianPenalty:
    """No two numbers of the noise act on a feature together: the off-diagonal part of its Hessian.

    For each layer the variance, over random vectors v of ±1, of vᵀHv ≈ (G(z + εv) − 2 G(z) + G(z − εv)) / ε², which is
    2 Σ_{i≠j} H_ij²; of it the largest element, summed over the layers (Peebles et al. 2020). The generator's batch norm
    is at its running statistics, or an image would depend on its company.

    Args:
        num_vectors, epsilon: k and ε.
        layers: names of the generator's modules; null takes every batch norm, or without any all convolutions and
            linear layers but the last.
        weight: factor of the term.

    Raises:
        ValueError: a setting out of range.
    """

    key = "gan.regularizers.hessian_penalty"

    def __init__(
        self,
        num_vectors: int = 2,
        epsilon: int | float = 0.1,
        layers: Sequence[str] | None = None,
        weight: Setting = 0.1,
    ):
        self.num_vectors = whole_number(num_vectors, f"{self.key}.num_vectors", 2)
        self.epsilon = real_number(epsilon, f"{self.key}.epsilon", above=0.0)
        self.layers, self.weight = layers, weight

    def prepare(self, generator: nn.Module, data: FaceData) -> None:
        """
        Raises:
            ValueError: the generator has no such layer.
        """
        features_of(generator, torch.zeros(1, z_dim_of(generator)), self.layers, self.key)

    def __call__(self, generator: nn.Module, noise: Tensor, images: Tensor) -> Tensor:
        steps = self.epsilon * signs_like(noise, self.num_vectors, num_free(generator))
        around = torch.cat([noise[None], noise + steps, noise - steps]).flatten(0, 1)
        terms = []
        for feature in features_of(generator, around, self.layers, self.key):
            here, ahead, behind = feature.unflatten(0, (-1, len(noise))).split([1, len(steps), len(steps)])
            terms.append(((ahead - 2 * here + behind) / self.epsilon**2).var(dim=0).max())
        return torch.stack(terms).sum()


class OrthogonalJacobian(HessianPenalty):
    """No two numbers of the noise move a layer the same way: the off-diagonal part of JᵀJ.

    For each layer the variance, over random vectors v of ±1, of ‖Jv‖², Jv ≈ (G(z + εv) − G(z)) / ε, which is
    2 Σ_{i≠j} (J_iᵀ J_j)² (Wei et al. 2021, "OroJaR"); a mean over images, summed over the layers. Batch norm is as in
    `HessianPenalty`.

    Args:
        normalised: divide by the square of the mean of ‖Jv‖², Σ ‖J_i‖², so that it is a share, the same for layers and
            generators of any scale; else the weight has to follow the activations' size.

    Raises:
        ValueError: a setting out of range.
    """

    key = "gan.regularizers.orojar"

    def __init__(
        self,
        num_vectors: int = 2,
        epsilon: int | float = 0.1,
        layers: Sequence[str] | None = None,
        normalised: bool = True,
        weight: Setting = 0.1,
    ):
        super().__init__(num_vectors, epsilon, layers, weight)
        self.normalised = normalised

    def __call__(self, generator: nn.Module, noise: Tensor, images: Tensor) -> Tensor:
        steps = self.epsilon * signs_like(noise, self.num_vectors, num_free(generator))
        around = torch.cat([noise[None], noise + steps]).flatten(0, 1)
        terms = []
        for feature in features_of(generator, around, self.layers, self.key):
            here, ahead = feature.unflatten(0, (-1, len(noise))).split([1, len(steps)])
            squares = ((ahead - here) / self.epsilon).flatten(2).square().sum(dim=2)
            variance = squares.var(dim=0)
            size = (
                squares.mean(dim=0).square().clamp_min(torch.finfo(squares.dtype).tiny)
            )  # 0 of a layer that starts at 0
            terms.append((variance / size if self.normalised else variance).mean())
        return torch.stack(terms).sum()


def signs_like(noise: Float[Tensor, "n z_dim"], num: int, free: int) -> Float[Tensor, "num n z_dim"]:
    """Random vectors of ±1 for each row, 0 where a number is no noise but a condition; by torch's own generator."""
    signs = torch.randint(0, 2, (num, *noise.shape), device=noise.device).to(noise) * 2 - 1
    signs[:, :, free:] = 0
    return signs


def features_of(
    generator: nn.Module, noise: Float[Tensor, "m z_dim"], names: Sequence[str] | None, key: str
) -> list[Float[Tensor, "m ..."]]:
    """What some layers of a generator give for noise, batch norm at its running statistics.

    Never in bfloat16, whose digits a difference divided by ε² does not leave.

    Raises:
        ValueError: it has no such layer.
    """
    known = dict(generator.named_modules())
    if names is None:
        norms = [name for name, layer in known.items() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
        convolutions = [
            name for name, layer in known.items() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        ]
        names = norms or convolutions[:-1]
    if not names or not set(names) <= set(known):
        said = f"[{','.join(names)}]" if names else "null"
        raise ValueError(f"{key}.layers={said}: generator.network has no such layer; name some of its modules")
    found: list[Tensor] = []
    # Cloned, because an activation may come in place.
    hooks = [
        known[name].register_forward_hook(lambda _layer, _inputs, output: found.append(output.clone()))
        for name in names
    ]
    training = {layer: layer.training for layer in generator.modules()}
    try:
        with torch.autocast(noise.device.type, enabled=False):
            generator.eval()(noise)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, was in training.items():
            layer.training = was
    return found
