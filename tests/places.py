"""Where tests find what they do not make themselves."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
# The published classifier and a slice of CelebA, neither of them ours to ship: tests that use them skip without.
REAL = Path(os.environ.get("ZSTEER_REAL", ROOT.parent / "shared" / "real"))
GOLDEN_NETWORKS = (
    "generator=tutorial",
    "generator.network.hidden_dim=8",
    f"generator.checkpoint={GOLDEN / 'pretrained_celeba.pth'}",
    "classifier=tutorial",
    "classifier.network.hidden_dim=8",
    f"classifier.checkpoint={GOLDEN / 'pretrained_classifier.pth'}",
    "judge=none",
)
