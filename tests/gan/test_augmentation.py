import pytest
import torch

from zsteer.gan.augmentation import DiffAugment, colored, cut, translated


def images(num=4, size=8):
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def of(values):
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_colours_change_as_defined():
    x = images(2)
    nothing, one = of([0.0, 0.0]), of([1.0, 1.0])
    torch.testing.assert_close(colored(x, nothing, one, one), x)
    torch.testing.assert_close(colored(x, of([0.3, -0.2]), one, one), x + of([0.3, -0.2]))
    grey = colored(x, nothing, of([0.0, 0.0]), one)
    torch.testing.assert_close(grey, x.mean(dim=1, keepdim=True).expand_as(x))
    flat = colored(x, nothing, one, of([0.0, 0.0]))
    torch.testing.assert_close(flat, x.mean(dim=(1, 2, 3), keepdim=True).expand_as(x))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (0, -3), (-1, 5)])
def test_translation_moves_each_image_and_fills_with_zeros(down, right):
    x = images(2)
    moved = translated(x, torch.tensor([[down, right], [0, 0]]))
    assert torch.equal(moved[1], x[1])
    for i in range(8):
        for j in range(8):
            inside = 0 <= i - down < 8 and 0 <= j - right < 8
            expected = x[0, :, i - down, j - right] if inside else torch.zeros(3)
            assert torch.equal(moved[0, :, i, j], expected)


@pytest.mark.parametrize(("centre", "rows", "columns"), [((4, 4), (2, 6), (2, 6)), ((0, 7), (0, 2), (5, 8))])
def test_a_square_of_half_the_size_is_cut_out(centre, rows, columns):
    x = torch.ones(1, 3, 8, 8)
    expected = x.clone()
    expected[:, :, slice(*rows), slice(*columns)] = 0
    assert torch.equal(cut(x, torch.tensor([centre])), expected)


def test_each_image_is_changed_in_its_own_way_and_gradients_pass():
    x = images(1).expand(16, -1, -1, -1).clone().requires_grad_()
    torch.manual_seed(0)
    changed = DiffAugment()(x)
    assert changed.shape == x.shape
    assert not torch.allclose(changed[0], changed[1])
    changed.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum(dim=(1, 2, 3)).min() > 0


def test_what_is_switched_off_does_not_happen():
    x = images()
    assert torch.equal(DiffAugment(color=False, translation=False, cutout=False)(x), x)
    shifted = DiffAugment(color=False, cutout=False)(images(64, 16))
    assert ((shifted == 0).all(dim=1).sum(dim=(1, 2)) <= 2 * 16 * 2).all()  # two pixels each way at most
