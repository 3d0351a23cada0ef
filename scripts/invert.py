"""`python scripts/invert.py [overrides]`: see configs/invert.yaml."""

from zsteer.app.commands import invert

if __name__ == "__main__":
    invert()
