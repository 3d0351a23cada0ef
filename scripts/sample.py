"""`python scripts/sample.py [overrides]`: see configs/sample.yaml."""

from zsteer.app.commands import sample

if __name__ == "__main__":
    sample()
