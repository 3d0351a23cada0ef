"""What a steering run gives: figures, a picture, files, events."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch import Tensor

from zsteer.data import attributes
from zsteer.data.attributes import EDITS, MEASURED
from zsteer.events import Events
from zsteer.files import write_json
from zsteer.pictures import Png, annotated, grid_of, pillow, png, row_of, save_picture, to_uint8
from zsteer.results import Result
from zsteer.steering import metrics
from zsteer.steering.figures import MEANINGS
from zsteer.steering.history import History
from zsteer.steering.judge import Judge
from zsteer.steering.metrics import Judged, Scored
from zsteer.training.loggers import log_figures, log_settings

PICTURE = "steering.png"
MOST_COLUMNS = 256  # of it


@dataclass(frozen=True, repr=False)
class Steered(Result):
    """What a job did: its history, its settings and figures as in `metrics.json`, its picture.

    `columns` are the classifier's of the target and of what it joins. `side_effects` is the mean |Δ| / σ of each
    attribute that the target does not entail, as the judge sees it, or without a judge the steering classifier. `kept`
    goes into the history's file beside it, for a sweep's summary: `first_image` uint8 `[2, 3, H, W]` at the start and
    the end, and with a judge its `judge_logits` `[2, n, K]` then, and each image's `judge_gain` and `judge_dependency`
    `[n]`.
    """

    history: History
    columns: list[int]
    settings: dict[str, Any]
    figures: dict[str, float | None]
    side_effects: dict[str, float]
    image: Float[Tensor, "3 h w"]
    kept: dict[str, Tensor]

    @property
    def picture(self) -> Image:
        """One column per image, time downwards, the last row final; below, the target's probability (a factor's σ)."""
        return pillow(self.image)

    @property
    def strip(self) -> Image:
        """One row per image, time to the right, the last column final."""
        steps = sorted(self.history.images)
        shown = torch.stack([self.history.images[step] for step in steps], dim=1)
        return pillow(grid_of(shown.flatten(0, 1), columns=len(steps)))

    @property
    def images(self) -> Float[Tensor, "n 3 h w"]:
        """The final images, in [-1, 1]."""
        return self.history.images[max(self.history.images)]

    @property
    def noise(self) -> Float[Tensor, "n z_dim"]:
        """Where the noise ended."""
        return self.history.noise[-1]

    @property
    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds."""
        return {**self.settings, **self.figures}

    def write(self, folder: Path) -> None:
        """Write every file of a run folder that is no log, `metrics.json` last."""
        self.history.save(folder, self.kept)
        save_picture(folder / PICTURE, self._encoded)
        write_json(folder / "metrics.json", self.metrics)

    def log(self, loggers: Sequence[Logger]) -> None:
        """Log scalars per step, settings and figures; TensorBoard gets the pictures too."""
        for logger in loggers:
            if isinstance(logger, TensorBoardLogger):  # whose own writer takes too long for a sweep, see `events`
                folder = Path(logger.log_dir)
                write_events(folder, self.history, self.columns, self.image, self.settings, self.figures, self._encoded)
                continue
            log_settings([logger], self.settings)
            scalars = scalars_of(self.history, self.columns)
            for step in range(len(self.history.scores) + 1):
                if known := {tag: values[step] for tag, values in scalars.items() if step in values}:
                    logger.log_metrics(known, step)
            log_figures([logger], self.settings, self.figures, len(self.history.scores))

    @cached_property
    def _encoded(self) -> Png:
        return png(self.image)

    def report(self, folder: Path) -> str:
        """The figures, and where the picture is."""
        return f"{self}\n  {folder / PICTURE}"

    def __str__(self) -> str:
        return "\n".join(
            [title(self.settings), *notes(self.settings["target"]), table(self.figures, self.side_effects)]
        )


def measured(
    settings: dict[str, Any],
    history: History,
    names: Sequence[str],
    references: Sequence[Float[Tensor, "samples k"]],
    judge: Judge | None,
    factors: Collection[str] = (),
    num_free: int | None = None,
) -> Steered:
    """What a history did.

    Args:
        settings: the job's, as in `metrics.json`.
        names: of the steering classifier's logits, and `factors`, those of them that are no labels.
        references: the classifier's and the judge's logits over unsteered samples.
        num_free: how many of the noise's numbers are no condition.

    Raises:
        ValueError: the judge gives NaN or infinity.
    """
    target, sign, last = settings["target"], EDITS[settings["edit"]], max(history.images)
    classifier = Scored(names, history.logits[0], history.logits[-1], references[0])
    scored, by_image = None, {}
    if judge is not None:
        before, after = (judge.logits(history.images[step]) for step in (0, last))
        scored = Scored(judge.names, before, after, references[1])
        by_image = metrics.by_image(scored, target, sign, attributes.others_of(target, judge.names))
        by_image |= {"judge_logits": torch.stack([before, after])}
    factors = factors if judge is None else judge.factors
    seen, who = (classifier, "the steering classifier's, unconfirmed") if scored is None else (scored, "the judge's")
    column = attributes.find(target, seen.names)
    factor = seen.names[column] in factors
    views = [logits[:, column] if factor else logits[:, column].sigmoid() for logits in (seen.before, seen.after)]
    legend = f"below each column: {target} in sigma" if factor else f"below each column: probability of {target}"
    ends = torch.stack([history.images[step][0] for step in (0, last)])
    aim = dict.fromkeys((target, *attributes.parts(target)))
    return Steered(
        history,
        columns=[names.index(name) for name in aim if name in names],
        settings=settings,
        figures=metrics.figures(target, sign, history.noise[-1][:, :num_free], classifier, scored),
        side_effects=metrics.side_effects(seen, attributes.others_of(target, seen.names)),
        image=picture(
            history,
            captions=[f"{start:.2f} to {end:.2f}" for start, end in zip(*views, strict=True)],
            lines=[title(settings), f"{legend}, start to end ({who})"],
        ),
        kept={"first_image": to_uint8(ends), **by_image},
    )


def picture(history: History, captions: Sequence[str] = (), lines: Sequence[str] = ()) -> Float[Tensor, "3 h w"]:
    """The shown images in [0, 1]: one column per image, time downwards, the last row final; their steps beside them.

    Of many images the first 256.
    """
    rows = {step: images[:MOST_COLUMNS] for step, images in sorted(history.images.items())}
    grid = grid_of(torch.cat(list(rows.values())), columns=len(rows[0]))
    return annotated(grid, captions[:MOST_COLUMNS], [f"step {step}" for step in rows], lines)


def title(settings: Mapping[str, Any]) -> str:
    """What was done, in a few words."""
    return "{edit} {target} by {method}, penalty {penalty_weight:g}".format(**settings)


def notes(target: str) -> list[str]:
    """What a factor's name may be mistaken for: some labels are thresholds of a factor."""
    labels = [label for label, factor in MEASURED if factor == target]
    return [f"  {target} is a number, not the label {label}: target={label} would steer that" for label in labels]


def scalars_of(history: History, columns: Sequence[int]) -> dict[str, dict[int, float]]:
    """What is logged, by step: the score before each, the others of the recorded steps, and so of the last.

    Args:
        columns: as for `write_events`.
    """

    def other_change(logits: Tensor) -> Tensor:
        change = logits - history.logits[0]
        change[:, columns] = 0.0
        return change.norm(dim=1)

    recorded = {
        "steer/target_logit": [logits[:, columns[0]] for logits in history.logits],
        "steer/other_change": [other_change(logits) for logits in history.logits],
        "steer/noise_norm": [noise.norm(dim=1) for noise in history.noise],
    }
    scalars = {
        tag: dict(zip(history.steps, torch.stack(values).mean(dim=1).tolist(), strict=True))
        for tag, values in recorded.items()
    }
    return {**scalars, "steer/score": dict(enumerate(torch.stack(history.scores).mean(dim=1).tolist()))}


def write_events(
    folder: Path,
    history: History,
    columns: Sequence[int],
    image: Float[Tensor, "3 h w"],
    settings: Mapping[str, Any],
    figures: Mapping[str, float | None],
    encoded: Png | None = None,
) -> None:
    """Write TensorBoard events: scalars per step, images at the shown steps, the picture, one HParams row.

    Args:
        columns: of the target's logit and, behind it, of what else does not count as change of others.
        encoded: the picture `image` where it is encoded already.
    """
    events = Events()
    for tag, values in scalars_of(history, columns).items():
        for step, value in values.items():
            events.scalar(tag, value, step)
    for row, (step, images) in enumerate(sorted(history.images.items())):
        events.image("steer/images", png(row_of(image, images[:MOST_COLUMNS], row)), step)
    events.image("steer/history", encoded or png(image), len(history.scores))
    # HParams hides runs in which a column is a number here and null there: what is unknown is NaN.
    known = {f"figure/{name}": float("nan") if value is None else value for name, value in figures.items()}
    events.hparams(settings, known)
    events.save(folder)


def table(figures: Mapping[str, float | None], side_effects: Mapping[str, float]) -> str:
    """The figures as lines of text, each with its meaning, and the three largest side effects.

    Without a judge its figures are left out, and the side effects are those that the steering classifier sees.
    """
    width = max(map(len, MEANINGS))
    confirmed = figures["gain_judge"] is not None
    lines = [
        f"  {name:<{width}}  {'–' if value is None else f'{value:.2f}':>6}  {MEANINGS[name]}"
        for name, value in figures.items()
        if confirmed or name not in Judged.__annotations__
    ]
    if side_effects:
        largest = sorted(side_effects.items(), key=lambda effect: -effect[1])[:3]
        lines.append(f"  {'largest side effects':<{width}}  {', '.join(f'{name} {v:.2f}σ' for name, v in largest)}")
    if not confirmed:
        lines.append("  unconfirmed: no judge took part; all this is what the steering classifier itself sees")
    return "\n".join(lines)
