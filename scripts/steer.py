"""`python scripts/steer.py [overrides]`: see configs/steer.yaml."""

from zsteer.app.commands import steer

if __name__ == "__main__":
    steer()
