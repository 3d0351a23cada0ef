"""What a steering run gives: figures, a picture, files, events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from zsteer.data import attributes
from zsteer.data.attributes import EDITS
from zsteer.events import Events
from zsteer.files import write_json
from zsteer.pictures import Png, captioned, grid_of, png, row_of, save_picture, to_uint8
from zsteer.steering import metrics
from zsteer.steering.history import History
from zsteer.steering.judge import Judge
from zsteer.steering.metrics import Scored
from zsteer.training.loggers import log_figures, log_settings

PICTURE = "steering.png"


@dataclass(frozen=True)
class Steered:
    """What a job did: its history, its settings and figures as in `metrics.json`, its picture.

    `columns` are the classifier's of the target and of what it joins. `side_effects` is the judge's mean |Δ| / σ of
    each attribute that the target does not entail. `kept` goes into the history's file beside it, for a sweep's
    summary: `first_image` uint8 `[2, 3, H, W]` at the start and the end, and with a judge its `judge_logits`
    `[2, n, K]` then, and each image's `judge_gain` and `judge_dependency` `[n]`.
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
        """One column per image, time downwards, the last row final; below, the judge's probabilities (a factor's σ)."""
        return to_pil_image(self.image)

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
            for step in range(len(self.history.noise)):
                logger.log_metrics({tag: values[step] for tag, values in scalars.items() if step < len(values)}, step)
            log_figures([logger], self.settings, self.figures, len(self.history.scores))

    @cached_property
    def _encoded(self) -> Png:
        return png(self.image)

    def report(self, folder: Path) -> str:
        """The figures, and where the picture is."""
        return f"{self}\n  {folder / PICTURE}"

    def __str__(self) -> str:
        title = "{edit} {target} by {method}, penalty {penalty_weight:g}".format(**self.settings)
        return f"{title}\n{table(self.figures, self.side_effects)}"


def measured(
    settings: dict[str, Any],
    history: History,
    names: Sequence[str],
    references: Sequence[Float[Tensor, "samples k"]],
    judge: Judge | None,
) -> Steered:
    """What a history did.

    Args:
        settings: the job's, as in `metrics.json`.
        names: of the steering classifier's logits.
        references: the classifier's and the judge's logits over unsteered samples.

    Raises:
        ValueError: the judge gives NaN or infinity.
    """
    target, sign, last = settings["target"], EDITS[settings["edit"]], max(history.images)
    classifier = Scored(names, history.logits[0], history.logits[-1], references[0])
    scored, captions, effects, by_image = None, [], {}, {}
    if judge is not None:
        before, after = (judge.logits(history.images[step]) for step in (0, last))
        scored = Scored(judge.names, before, after, references[1])
        column = attributes.find(target, judge.names)
        others = metrics.others_of(target, judge.names)
        factor = judge.names[column] in judge.factors
        seen = [logits[:, column] if factor else logits[:, column].sigmoid() for logits in (before, after)]
        captions = [f"{start:.2f} to {end:.2f}" for start, end in zip(*seen, strict=True)]
        effects = metrics.side_effects(scored, others)
        by_image = metrics.by_image(scored, target, sign, others) | {"judge_logits": torch.stack([before, after])}
    ends = torch.stack([history.images[step][0] for step in (0, last)])
    aim = dict.fromkeys((target, *attributes.parts(target)))
    return Steered(
        history,
        columns=[names.index(name) for name in aim if name in names],
        settings=settings,
        figures=metrics.figures(target, sign, history.noise[-1], classifier, scored),
        side_effects=effects,
        image=picture(history, captions),
        kept={"first_image": to_uint8(ends), **by_image},
    )


def picture(history: History, captions: Sequence[str] = ()) -> Float[Tensor, "3 h w"]:
    """The shown images in [0, 1]: one column per image, time downwards, the last row final; captions below."""
    rows = [history.images[step] for step in sorted(history.images)]
    grid = grid_of(torch.cat(rows), columns=len(rows[0]))
    return captioned(grid, captions) if captions else grid


def scalars_of(history: History, columns: Sequence[int]) -> dict[str, list[float]]:
    """What is logged at each step, the score before it, the others at the end too.

    Args:
        columns: as for `write_events`.
    """
    noise, logits = torch.stack(history.noise), torch.stack(history.logits)
    change = logits - logits[0]
    change[:, :, columns] = 0.0
    scalars = {
        "steer/target_logit": logits[:, :, columns[0]].mean(dim=1),
        "steer/other_change": change.norm(dim=2).mean(dim=1),
        "steer/noise_norm": noise.norm(dim=2).mean(dim=1),
        "steer/score": torch.stack(history.scores).mean(dim=1),
    }
    return {tag: values.tolist() for tag, values in scalars.items()}


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
        for step, value in enumerate(values):
            events.scalar(tag, value, step)
    for row, (step, images) in enumerate(sorted(history.images.items())):
        events.image("steer/images", png(row_of(image, images, row)), step)
    events.image("steer/history", encoded or png(image), len(history.scores))
    # HParams hides runs in which a column is a number here and null there: what is unknown is NaN.
    known = {f"figure/{name}": float("nan") if value is None else value for name, value in figures.items()}
    events.hparams(settings, known)
    events.save(folder)


def table(figures: Mapping[str, float | None], side_effects: Mapping[str, float]) -> str:
    """The figures as lines of text, with the three largest side effects."""
    width = max(map(len, figures))
    lines = [f"  {name:<{width}}  {'–' if value is None else f'{value:.3f}'}" for name, value in figures.items()]
    if figures["gain_judge"] is None:
        lines.append("  unconfirmed: no judge took part, so only the steering classifier says so")
    elif side_effects:
        largest = sorted(side_effects.items(), key=lambda effect: -effect[1])[:3]
        lines.append(f"  {'largest side effects':<{width}}  " + ", ".join(f"{name} {v:.2f}σ" for name, v in largest))
    return "\n".join(lines)
