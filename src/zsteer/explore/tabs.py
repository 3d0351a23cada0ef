"""What one browser tab has: faces, the edits of those that are chosen, and a second method beside the first."""

import threading
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from zsteer.explore.edits import Edits, View
from zsteer.explore.paths import SteeredPath, Told
from zsteer.explore.studio import Aim, Studio


class Tab:
    """A tab; nothing of it is another's.

    `chosen` is the number of a face, or None for all of them; `rival` the method beside that of the aim, or None;
    `refusal` what that method says where it does not steer this, or None. Whatever steers raises ValueError as
    `Studio.path` does.
    """

    def __init__(self, studio: Studio):
        self.studio, self.lock = studio, threading.Lock()
        self.rival: str | None = None
        self.refusal: str | None = None
        self._beside: SteeredPath | None = None
        self.faces, self.chosen = studio.first_faces, 0
        self.edits = Edits(studio, self.faces[[0]], studio.first_aim)

    def put(self, faces: Float[Tensor, "n z_dim"]) -> None:
        """Have other faces, the first of them chosen."""
        self.faces = faces
        self.choose(0)

    def choose(self, face: int | None) -> None:
        """Choose one of the faces or all, as they were before all edits."""
        self.chosen, self._beside, self.refusal = face, None, None
        noise = self.faces if face is None else self.faces[[face]]
        self.edits = Edits(self.studio, noise, self.edits.aim)

    def steer(self, aim: Aim, rival: str | None, told: Told = lambda share: None) -> None:
        """Give the slider an aim, and another method beside it."""
        self.edits.choose(aim, told)
        self.rival = rival
        self._follow(told)

    def undo(self, told: Told = lambda share: None) -> None:
        """See `Edits.undo`."""
        self.edits.undo(told)
        self._follow(told)

    def put_earlier(self, number: int, told: Told = lambda share: None) -> None:
        """See `Edits.put_earlier`."""
        self.edits.put_earlier(number, told)
        self._follow(told)

    def _follow(self, told: Told) -> None:
        """Steer the same with the other method, from where the slider's edit starts."""
        self._beside = self.refusal = None
        if self.rival is not None and self.rival != self.edits.aim.method:
            try:
                self._beside = self.studio.path(self.edits.noise, replace(self.edits.aim, method=self.rival), told)
            except ValueError as error:
                self.refusal = str(error)

    def views(self) -> list[tuple[str, View]]:
        """The faces where the slider stands, by the aim's method and by the one beside it; the methods' names."""
        views = [(self.edits.aim.method, self.edits.view())]
        return views if self._beside is None else [*views, (self.rival or "", self.edits.view(self._beside))]
