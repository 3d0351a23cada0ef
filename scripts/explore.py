"""`python scripts/explore.py [overrides]`: see configs/explore.yaml."""

from zsteer.app.commands import explore

if __name__ == "__main__":
    explore()
