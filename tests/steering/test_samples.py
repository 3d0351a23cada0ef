"""Images of a generator as files."""

import io

import torch
from PIL import Image
from places import GOLDEN_NETWORKS
from safetensors.torch import load_file
from torchvision.transforms.functional import pil_to_tensor

import zsteer
from zsteer.app.composition import compose
from zsteer.networks.loading import load_network
from zsteer.pictures import to_uint8

GENERATOR = [word for word in GOLDEN_NETWORKS if word.startswith("generator")]


def test_samples_are_files_a_picture_and_noise(command):
    ended = command("sample", *GENERATOR, "num_images=10", "seed=4")
    assert ended.code == 0 and "10 images of 64×64 pixels" in ended.out
    noise = load_file(ended.folder / "noise.safetensors")["noise"]
    assert torch.equal(noise, torch.randn(10, 64, generator=torch.Generator().manual_seed(4)))
    files = sorted((ended.folder / "images").iterdir())
    assert [path.name for path in files[:2]] == ["00000.png", "00001.png"] and len(files) == 10
    again = command("sample", *GENERATOR, f"noise={ended.folder}")  # its own noise gives the same
    generator = load_network(compose("sample", GENERATOR).generator, "generator")
    images = zsteer.sample(generator, n=10, seed=4)
    for path, image in zip(files, to_uint8(images), strict=True):
        assert torch.equal(pil_to_tensor(Image.open(io.BytesIO(path.read_bytes()))), image)
        assert path.read_bytes() == (again.folder / "images" / path.name).read_bytes()
    with Image.open(ended.folder / "samples.png") as picture:
        assert picture.size == (8 * 66 + 2, 2 * 66 + 2)


def test_bad_numbers_are_refused(command):
    for words, said in ((["num_images=0"], "num_images=0"), (["seed=-1"], "seed=-1"), (["noise=no"], "noise=no")):
        ended = command("sample", *GENERATOR, *words)
        assert ended.code == 1 and said in ended.err and not (ended.folder / "samples.png").exists()
