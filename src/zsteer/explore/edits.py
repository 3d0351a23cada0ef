"""The edits of some faces, each of which starts where the one before it ends; the last is the slider's."""

import math
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float, UInt8
from torch import Tensor

from zsteer.data import attributes
from zsteer.explore.paths import SteeredPath, Told
from zsteer.explore.studio import Aim, Studio
from zsteer.pictures import to_uint8
from zsteer.statistics import mean_known
from zsteer.steering import metrics
from zsteer.steering.metrics import Scored
from zsteer.sweeps.hydra_internals import word_of

GAP = 0.75  # σ that the judge does not confirm, from which on the page warns
TYPICAL = (1.0, 99.0)  # percentiles of ‖z‖² in the prior, outside of which it warns


@dataclass(frozen=True)
class Edit:
    """An edit that was made: its aim, the judged changes that were wanted and reached in σ, and what it took.

    `steps` is negative where the attribute was removed; `end` is the noise `[n, z_dim]` where it led.
    """

    aim: Aim
    wanted: float
    gain: float
    steps: int
    step_size: float | str
    end: Float[Tensor, "n z_dim"]

    @property
    def sign(self) -> str:
        """What was done to the attribute."""
        return "remove" if self.steps < 0 else "add"

    def words(self) -> list[str]:
        """The edit as words of the command `steer`, but for the noise and the networks."""
        settings = {
            "target": self.aim.target,
            "edit": self.sign,
            "method": self.aim.method,
            "penalty_weight": self.aim.penalty_weight,
            "num_steps": abs(self.steps),
        }
        if held := [name for name in self.aim.held if name != self.aim.target]:
            settings["preserve"] = held
        if self.step_size != "auto":  # which may hang on the number of steps
            settings["step_size"] = self.step_size
        return [word_of(key, setting) for key, setting in settings.items()]


@dataclass(frozen=True)
class View:
    """Faces as they are now: images at the start of all edits and now, what is seen of them, what to beware of.

    `judged` has the logits of the judge (without one, of the classifier) then and now; `gain` and `side_effect` are
    the slider's edit alone, in σ: of its target, and the mean of |change| of what that does not entail.
    """

    before: UInt8[Tensor, "n 3 h w"]
    now: UInt8[Tensor, "n 3 h w"]
    judged: Scored
    gain: float
    side_effect: float | None
    warnings: list[str]


class Edits:
    """The edits of some faces.

    Args:
        noise: of the faces before all edits.
        aim: the slider's at first, which `choose` steers.

    Raises:
        ValueError: as `Studio.path`, by whatever steers anew; nothing is then changed.
    """

    def __init__(
        self,
        studio: Studio,
        noise: Float[Tensor, "n z_dim"],
        aim: Aim,
    ):
        self.studio, self.start = studio, noise
        self.made: list[Edit] = []
        self.aim, self.wanted = aim, 0.0
        self.path: SteeredPath | None = None
        self._looks: dict[tuple[str, ...], tuple[tuple[str, ...], Tensor, Tensor]] = {}

    @property
    def noise(self) -> Float[Tensor, "n z_dim"]:
        """Where the slider's edit starts."""
        return self.made[-1].end if self.made else self.start

    @property
    def current(self) -> Edit | None:
        """The slider's edit, if it has been moved."""
        if self.path is None or (moment := self.path.nearest(self.wanted)) == self.path.start:
            return None
        return edit_of(self.path, self.aim, self.wanted, moment)

    @property
    def reach(self) -> tuple[float, float]:
        """How far the slider goes, in tenths of σ; one at least to each side."""
        low, high = (0.0, 0.0) if self.path is None else self.path.reach
        return min(math.floor(10 * low), -1) / 10, max(math.ceil(10 * high), 1) / 10

    @property
    def all(self) -> list[Edit]:
        """The edits made, and that of the slider."""
        return [*self.made, *filter(None, [self.current])]

    def choose(self, aim: Aim, told: Told = lambda share: None) -> None:
        """Give the slider an aim.

        With another attribute the edit so far is made and the next one starts from its end; with the same one the edit
        is steered anew to the same judged change.
        """
        same, current = aim.target == self.aim.target, self.current
        made = self.made if same or current is None else [*self.made, current]
        path = self.studio.path(made[-1].end if made else self.start, aim, told)
        self.made, self.aim, self.path = made, aim, path
        self.wanted = self.wanted if same else 0.0

    def undo(self, told: Told = lambda share: None) -> None:
        """Take the slider back to 0, or where it is there, back to the edit before."""
        if self.current is not None or not self.made:
            self.wanted = 0.0
            return
        *made, last = self.made
        path = self.studio.path(made[-1].end if made else self.start, last.aim, told)
        self.made, self.aim, self.wanted, self.path = made, last.aim, last.wanted, path

    def put_earlier(self, number: int, told: Told = lambda share: None) -> None:
        """Have an edit that was made, of those before it, come one earlier; all behind it are steered anew.

        Raises:
            ValueError: one of them would come to nothing; or see above.
        """
        order = list(self.made)
        order[number - 1 : number + 1] = reversed(order[number - 1 : number + 1])
        again = Edits(self.studio, self.start, self.aim)
        for edit in order:
            again.path = self.studio.path(again.noise, edit.aim, told)
            moment = again.path.nearest(edit.wanted)
            if moment == again.path.start:
                raise ValueError(f"{edit.aim.target} would come to nothing in that order, which is left as it is")
            again.made.append(edit_of(again.path, edit.aim, edit.wanted, moment))
        path = self.studio.path(again.noise, self.aim, told)
        self.made, self.path = again.made, path

    @cached_property
    def before(self) -> Float[Tensor, "n 3 h w"]:
        """The faces before all edits, in [-1, 1]."""
        return self.studio.images(self.start)

    def view(self, path: SteeredPath | None = None) -> View:
        """The faces where the slider stands, on its own path or on that of another method."""
        path = path or self.path
        known = () if path is None else path.names[1]
        if known not in self._looks:  # a regressor sees more than a judge
            self._looks[known] = self.studio.judged(self.before, self.aim)
        names, start, reference = self._looks[known]
        if path is None:
            return View(
                to_uint8(self.before), to_uint8(self.before), Scored(names, start, start, reference), 0.0, None, []
            )
        moment = path.nearest(self.wanted)
        own = path.scored_by_judge(moment)
        effects = metrics.side_effects(own, attributes.others_of(path.target, own.names))
        return View(
            to_uint8(self.before),
            path.images[moment],
            Scored(names, start, own.after, reference),
            path.gains[moment],
            mean_known(effects.values()),
            warnings(path, moment, self.studio),
        )


def edit_of(path: SteeredPath, aim: Aim, wanted: float, moment: int) -> Edit:
    """What leads along a path to one of its moments."""
    return Edit(aim, wanted, path.gains[moment], moment - path.start, path.step_size, path.noise[moment].clone())


def warnings(path: SteeredPath, moment: int, studio: Studio) -> list[str]:
    """What to beware of at a moment of a path: a gain that the judge does not confirm, noise that is not typical."""
    told = []
    if studio.cfg.judge is not None and moment != path.start:
        sign = 1.0 if moment > path.start else -1.0
        classifier, judge = path.scored_by_classifier(moment), path.scored_by_judge(moment)
        confirmed = metrics.gain(judge, path.target, sign)
        due = metrics.agreement(classifier, judge, path.target) * metrics.gain(classifier, path.target, sign)
        if due - confirmed > GAP:  # the hacking gap
            told.append(
                f"The judge confirms {confirmed:.1f} σ of the {due:.1f} σ that the classifier's view would mean."
            )
    percentiles = metrics.norm_percentiles(path.noise[moment][:, : studio.num_free])
    if outside := int(((percentiles < TYPICAL[0]) | (percentiles > TYPICAL[1])).sum()):
        whose = "The noise" if len(percentiles) == 1 else f"The noise of {outside} of {len(percentiles)} faces"
        told.append(f"{whose} has left the prior: of 100 samples, fewer than one has a norm so far from the others'.")
    return told
