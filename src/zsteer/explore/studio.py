"""What all tabs of the page share: networks, the command `steer`, paths; one of these is steered at a time."""

import copy
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from PIL.Image import Image
from torch import Tensor

from zsteer.data.attributes import find, resolve, steerable
from zsteer.explore.paths import SteeredPath, Told, judged_logits, steer_path
from zsteer.inversion.search import invert
from zsteer.networks.inference import best_device, frozen, images_of, noise_of, num_free
from zsteer.steering.session import Session, group_of
from zsteer.steering.start import conditioned_noise

MEGABYTE = 10**6
NUM_SESSIONS = 4  # that are kept: one for each method, and one more where a regressor takes part


@dataclass(frozen=True)
class Aim:
    """What a slider steers and how: an attribute, a method and its penalty, and what that holds in place.

    `held` names attributes; without any it is what the method holds of itself.
    """

    target: str
    method: str
    penalty_weight: float
    held: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commands:
    """The commands `steer` and `invert`, as words on this page's command line had them.

    Args:
        methods: the names of the configs to choose from.
        steering: the checked config of `steer` with one of them; `inversion`, that of `invert`.
        run: performs `steer` with some words, as a run with a folder.
        words: of this page's command line, that `steer` has to be given too; those of a method by its name.
        program: how `steer` is called in a shell, and `config_dir`, the folder of the user's own configs.
    """

    methods: Sequence[str]
    steering: Callable[[str], DictConfig]
    inversion: Callable[[], DictConfig]
    run: Callable[[Sequence[str], Path], object]
    words: Callable[[str], list[str]]
    program: str = "zsteer-steer"
    config_dir: str | None = None


class Ended(Exception):
    """The page has been closed."""


class Studio:
    """What tabs share, from a checked config of `explore`.

    Raises:
        ValueError, FileNotFoundError: a network, the noise or a setting of the method does not fit.
    """

    def __init__(self, cfg: DictConfig, commands: Commands):
        self.cfg, self.commands = cfg, commands
        self.lock, self.closed = threading.Lock(), threading.Event()
        self._opening = threading.Lock()  # of sessions, for whom only looks need not wait until something is steered
        self._configs: dict[str, DictConfig] = {}
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._paths: OrderedDict[tuple[bytes, Aim], SteeredPath] = OrderedDict()
        names = [
            set(steerable(section, role)) for role in ("classifier", "judge") if (section := cfg[role]) is not None
        ]
        self.attributes = [name for name in steerable(cfg.classifier, "classifier") if name in set.intersection(*names)]
        target = self.attributes[find(cfg.target, self.attributes)]
        self.first_aim = Aim(target, commands.methods[0], float(cfg.penalty_weight))
        session = self.session(self.first_aim)
        self.generator = frozen(session.networks.generator, torch.float32, best_device())
        self.dtype, self.num_free = session.dtype, num_free(self.generator)
        self.holdable = resolve(cfg.classifier.attributes)  # a regressor takes part only where it is steered
        self.first_faces = self.faces_of_file(cfg.noise) if cfg.noise else self.faces_of_seed(cfg.seed)

    def config(self, aim: Aim, num_images: int = 1) -> DictConfig:
        """The config of `steer` for an aim, from any start."""
        if aim.method not in self._configs:
            self._configs[aim.method] = self.commands.steering(aim.method)
        cfg = copy.deepcopy(self._configs[aim.method])
        cfg.target, cfg.penalty_weight, cfg.num_images = aim.target, aim.penalty_weight, num_images
        if held := [name for name in aim.held if name != aim.target]:
            cfg.preserve = held
        cfg.noise, cfg.where = None, None
        return cfg

    def session(self, aim: Aim) -> Session:
        """The networks and the method of an aim, which aims of one kind share."""
        with self._opening:
            cfg = self.config(aim)
            group = group_of(cfg)
            if group not in self._sessions:
                self._sessions[group] = Session(cfg)
                while len(self._sessions) > NUM_SESSIONS:
                    self._sessions.popitem(last=False)
            self._sessions.move_to_end(group)
            return self._sessions[group]

    def path(self, noise: Float[Tensor, "n z_dim"], aim: Aim, told: Told = lambda share: None) -> SteeredPath:
        """The path of faces from their noise, steered only once as long as it is kept, whichever tab asks.

        Raises:
            ValueError: the method refuses the penalty or the target, or a score became NaN or infinite.
        """

        def go_on(share: float) -> None:
            if self.closed.is_set():
                raise Ended
            told(share)

        key = (hashlib.sha256(noise.numpy().tobytes()).digest(), aim)
        with self.lock:
            if key not in self._paths:
                go_on(0.0)
                self._paths[key] = steer_path(self.session(aim), self.config(aim, len(noise)), noise, go_on)
                while len(self._paths) > 1 and self.num_bytes > self.cfg.path_memory * MEGABYTE:
                    self._paths.popitem(last=False)
            self._paths.move_to_end(key)
            return self._paths[key]

    @property
    def num_bytes(self) -> int:
        """What the paths take that are kept."""
        return sum(path.num_bytes for path in self._paths.values())

    def images(self, noise: Float[Tensor, "n z_dim"]) -> Float[Tensor, "n 3 h w"]:
        """The faces of some noise, in [-1, 1]."""
        return images_of(self.generator, noise)

    def judged(
        self, images: Float[Tensor, "n 3 h w"], aim: Aim
    ) -> tuple[tuple[str, ...], Float[Tensor, "n k"], Float[Tensor, "samples k"]]:
        """What is judged of images where an aim is steered: names, logits, and logits over unsteered samples."""
        session = self.session(aim)
        names = session.networks.classifier.names if session.judge is None else session.judge.names
        return names, judged_logits(session, images), session.references[-1]

    def faces_of_seed(self, seed: int) -> Float[Tensor, "n z_dim"]:
        """New faces, which `steer` starts from too with this seed and `where=null`."""
        return noise_of(self.generator, self.cfg.num_images, seed, self.cfg.condition).to(self.dtype)

    def faces_of_file(self, path: str) -> Float[Tensor, "n z_dim"]:
        """The first faces of a file of noise, or of a run's history.

        Raises:
            ValueError: its noise does not fit the generator.
        """
        return conditioned_noise(self.generator, path, self.cfg.condition).to(self.dtype)[: self.cfg.num_images]

    def face_of_photo(self, photo: Image) -> Float[Tensor, "1 z_dim"]:
        """The noise whose face is nearest to a photo.

        Raises:
            ValueError: the photo has no pixels, or no start gets anywhere.
        """
        with self.lock:
            return invert(self.commands.inversion(), None, photo).noise.to(self.dtype)

    def close(self) -> None:
        """End what is being steered."""
        self.closed.set()
