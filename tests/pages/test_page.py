"""The command that writes a page, and what is inside."""

import base64
import gzip
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from places import GOLDEN, GOLDEN_NETWORKS
from runtimes import write_package
from small_faces import HOSTILE, NAMES, small_networks

import zsteer
from zsteer.app import checks
from zsteer.app.composition import compose
from zsteer.data.attributes import CELEBA, others_of
from zsteer.networks.inference import noise_of
from zsteer.pages.graphs import TOLERANCE, outputs_of
from zsteer.pages.page import FAMILIAR, Page, first_sliders, held_directions, page_of
from zsteer.pages.runtime import read_runtime
from zsteer.steering.directions import find_directions
from zsteer.steering.metrics import sigma_of
from zsteer.steering.reference import reference_logits

NETWORKS = (
    *(word for word in GOLDEN_NETWORKS if not word.startswith("judge")),
    "judge=tutorial",
    "judge.network.hidden_dim=8",
    f"judge.checkpoint={GOLDEN / 'pretrained_classifier.pth'}",
)


class Scripts(HTMLParser):
    """The texts of a page's scripts, by their ids."""

    def __init__(self, html: str):
        super().__init__()
        self.texts, self._id = {}, None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self._id = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data):
        if self._id is not None:
            self.texts[self._id] = self.texts.get(self._id, "") + data


def numbers(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.float32)


def inside(page: Page) -> tuple[dict, dict[str, bytes]]:
    """The page's data and what is packed in it."""
    texts = Scripts(page.html).texts
    packed = {name: gzip.decompress(base64.b64decode(texts[name])) for name in ("script", "wasm", "generator", "judge")}
    return json.loads(texts["data"]), packed


def test_a_page_holds_networks_faces_and_directions(tmp_path):
    networks = small_networks()
    runtime = read_runtime(write_package(tmp_path))
    page = page_of(networks, runtime, compose("export", ["seed=3", "penalty_weight=0.5"]))
    data, packed = inside(page)
    assert (packed["script"], packed["wasm"]) == (runtime.script, runtime.wasm)
    noise = noise_of(networks.generator, 8, 3)
    assert np.array_equal(numbers(data["faces"]).reshape(8, 8), noise.numpy())
    images = outputs_of(packed["generator"], noise)
    assert networks.judge is not None
    with torch.no_grad():
        drawn = networks.generator(noise)
        assert np.abs(images - drawn.numpy()).max() < TOLERANCE
        logits = networks.judge.network(drawn).numpy()
    assert np.abs(outputs_of(packed["judge"], torch.tensor(images)) - logits).max() < TOLERANCE
    assert (data["attributes"], data["judge"]) == (list(NAMES), list(NAMES[::-1]))
    assert [NAMES[number] for number in data["sliders"]] == [name for name in FAMILIAR if name in NAMES]
    references = reference_logits(networks.generator, [networks.classifier.network, networks.judge.network])
    assert np.allclose(numbers(data["sigma"]), sigma_of(references[1]))
    directions = find_directions("gradient", networks.generator, references[0])
    held = held_directions(directions, NAMES, 0.5).numpy()
    assert np.array_equal(numbers(data["directions"]).reshape(4, 8), held)
    assert HOSTILE not in page.html
    page.save(tmp_path / "run")
    assert (tmp_path / "run" / "page.html").read_text() == page.html
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["runtime"] == "1.30.0"


def test_a_direction_moves_the_others_as_little_as_the_penalty_says():
    names = ("Bald", "Smiling", "Bangs", "Male")
    directions = torch.randn(4, 6, dtype=torch.float64)
    held = held_directions(directions, names, 0.1).numpy()
    for number, name in enumerate(names):
        others = [names.index(other) for other in others_of(name, names)]
        assert len(others) == (2 if name in ("Bald", "Bangs") else 3)  # which exclude one another
        system = np.eye(6) + 64 * 0.1 * sum(np.outer(directions[k], directions[k]) for k in others)
        expected = np.linalg.inv(system) @ directions[number].numpy()
        assert np.allclose(held[number], expected / np.linalg.norm(expected))


def test_sliders_are_those_wanted_or_familiar_or_what_moves_most():
    rises = torch.tensor([0.1, 0.4, 0.2, 0.3])
    assert first_sliders(["bangs", "SMILING"], NAMES, rises) == [3, 0]
    assert first_sliders([], NAMES, rises) == []
    assert first_sliders(None, NAMES, rises) == [0, 3]
    assert first_sliders(None, "abcd", rises) == [1, 3, 2, 0]


def test_the_command_writes_a_page_where_it_is_told(command, tmp_path):
    path = tmp_path / "named.html"
    path.write_text("mine")
    words = (*NETWORKS, f"runtime={write_package(tmp_path / 'package')}", f"page={path}")
    refused = command("export", *words)
    assert refused.code == 1 and f"page={path} is there already; name another, or give overwrite=true" in refused.err
    assert path.read_text() == "mine" and not refused.folder.exists()
    ended = command("export", *words, "overwrite=true")
    assert ended.code == 0, ended.err
    assert not (ended.folder / "page.html").exists()
    metrics = json.loads((ended.folder / "metrics.json").read_text())
    assert metrics["megabytes"] == pytest.approx(path.stat().st_size / 1e6)
    assert max(metrics["image_difference"], metrics["logit_difference"]) < TOLERANCE
    assert f"a page of {metrics['megabytes']:.1f} MB" in ended.out and str(path) in ended.out
    data = json.loads(Scripts(path.read_text()).texts["data"])
    assert data["attributes"] == list(CELEBA) and [CELEBA[number] for number in data["sliders"]] == list(FAMILIAR)


@pytest.fixture
def package(tmp_path):
    return write_package(tmp_path / "package")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("judge=none", "judge=none: a page needs one"),
        ("page=nowhere/page.html", "page=nowhere/page.html: there is no folder nowhere; make it first"),
        ("page=/proc/page.html", "page=/proc/page.html cannot be written ("),
        ("page=src", "page=src must be the name of a page, as in page=src/page.html"),
        ("page=page.txt", "page=page.txt must be the name of a page"),
        ("overwrite=maybe", "overwrite=maybe must be true or false"),
        ("sliders=[Smilling]", "sliders='Smilling' is not an attribute of the classifier; did you mean 'Smiling'?"),
        ("sliders=[Smiling,smiling]", "sliders=['Smiling', 'smiling'] must be different attributes"),
        ("sliders=Smiling", "sliders=Smiling must be a list"),
        ("penalty_weight=-1", "penalty_weight=-1 must be a finite number, 0 or more"),
        ("seed=-1", "seed=-1 must be a whole number"),
        ("runtime=null", "runtime=null: a page needs ONNX Runtime Web inside; fetch it by `npm pack onnxruntime-web`"),
        ("runtime=nowhere", "runtime=nowhere: no such file or folder; fetch it by"),
    ],
)
def test_what_would_fail_is_refused_before_torch_is_loaded(package, word, said):
    cfg = compose("export", [f"runtime={package}", word])
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        checks.export(cfg)
    assert str(error.value).startswith(said)


def test_what_is_refused_leaves_no_folder(command, package):
    ended = command("export", f"runtime={package}", "sliders=[Smilling]")
    assert ended.code == 1 and ended.err.splitlines()[-1].startswith("error: sliders='Smilling' is not")
    assert not ended.folder.exists()
    with pytest.raises(FileNotFoundError, match="runtime=nowhere: no such file or folder"):
        zsteer.export(runtime="nowhere")


def test_without_onnx_the_extra_is_named(package, monkeypatch):
    monkeypatch.setattr("zsteer.app.checks.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ValueError, match=r"^zsteer-export needs ONNX: pip install 'zsteer\[explore\]'$"):
        checks.export(compose("export", [f"runtime={package}"]))
