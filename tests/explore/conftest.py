"""What tabs share, made as the command makes it, and a tab's edits."""

import pytest
from places import GOLDEN_NETWORKS

import zsteer
from zsteer.app.composition import compose

WORDS = (*GOLDEN_NETWORKS, "trainer=cpu")


@pytest.fixture(scope="session")
def studio_of():
    """`studio_of("judge=bundled", method="ascent")`: the methods take six steps."""
    from zsteer.explore.studio import Commands, Studio

    def of(*words, method="penalty", **settings):
        words = (*words, *(f"{key}={value}" for key, value in settings.items()))
        shared = [word for word in words if word.startswith(("generator", "classifier", "judge", "trainer"))]

        def steering(name):
            job = compose("steer", [*shared, f"method={name}", "method.run.num_steps=6"])
            job.num_images, job.seed = cfg.num_images, cfg.seed
            return job

        cfg = compose("explore", words)
        return Studio(
            cfg,
            Commands(
                methods=[method, *(name for name in ("penalty", "ascent", "tutorial", "projected") if name != method)],
                steering=steering,
                inversion=lambda: compose("invert", [*shared, "num_samples=64", "starts=1", "num_steps=2"]),
                run=lambda words, folder: zsteer.steer(*words, folder=folder),
                words=lambda name: shared,
            ),
        )

    return of


@pytest.fixture(scope="session")
def studio(studio_of):
    """Of small networks, without a judge."""
    return studio_of(*WORDS, num_images=3)


@pytest.fixture
def edits(studio):
    """Of two faces."""
    from zsteer.explore.edits import Edits

    return Edits(studio, studio.first_faces[:2], studio.first_aim)
