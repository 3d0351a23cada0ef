"""Augmentation of what a discriminator sees, for when there are few images."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class DiffAugment:
    """Differentiable changes of colour, place and parts, different for each image (Zhao et al. 2020).

    The discriminator sees real and generated images through it, so that the generator need not learn to make the
    changes. It helps with a few thousand images once the discriminator knows them by heart, and costs quality before
    that, or with all of CelebA. Random numbers are torch's own.

    Args:
        color: brightness, saturation and contrast.
        translation: by up to an eighth of the size each way.
        cutout: of a square of half the size.
    """

    def __init__(self, color: bool = True, translation: bool = True, cutout: bool = True):
        self.color, self.translation, self.cutout = color, translation, cutout

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        n, _, *size = images.shape
        if self.color:
            brightness, saturation, contrast = torch.rand(3, n, 1, 1, 1, device=images.device, dtype=images.dtype)
            images = colored(images, brightness - 0.5, 2 * saturation, contrast + 0.5)
        if self.translation:
            shifts = [torch.randint(-(side // 8), side // 8 + 1, (n,), device=images.device) for side in size]
            images = translated(images, torch.stack(shifts, dim=1))
        if self.cutout:
            centres = [torch.randint(0, side + 1, (n,), device=images.device) for side in size]
            images = cut(images, torch.stack(centres, dim=1))
        return images


def colored(
    images: Float[Tensor, "n c h w"],
    brightness: Float[Tensor, "n 1 1 1"],
    saturation: Float[Tensor, "n 1 1 1"],
    contrast: Float[Tensor, "n 1 1 1"],
) -> Float[Tensor, "n c h w"]:
    """Add brightness, scale the distance from each pixel's grey, then that from each image's mean."""
    images = images + brightness
    grey = images.mean(dim=1, keepdim=True)
    images = grey + saturation * (images - grey)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + contrast * (images - mean)


def translated(images: Float[Tensor, "n c h w"], shift: Int[Tensor, "n 2"]) -> Float[Tensor, "n c h w"]:
    """Each image moved down and to the right by its own number of pixels, zeros where it came from."""
    for dim in (2, 3):
        side = images.shape[dim]
        source = torch.arange(side, device=images.device) - shift[:, dim - 2, None]
        inside = (source >= 0) & (source < side)
        view = (len(images), 1, side, 1) if dim == 2 else (len(images), 1, 1, side)
        images = images.gather(dim, source.clamp(0, side - 1).view(view).expand_as(images)) * inside.view(view)
    return images


def cut(images: Float[Tensor, "n c h w"], centre: Int[Tensor, "n 2"]) -> Float[Tensor, "n c h w"]:
    """A square of half the size around each centre set to zero."""
    inside = []
    for i, side in enumerate(images.shape[2:]):
        offset = torch.arange(side, device=images.device) - centre[:, i, None]
        inside.append((offset >= -(side // 4)) & (offset < side // 4))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hole, 0.0)
