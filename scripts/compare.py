"""`python scripts/compare.py [overrides]`: see configs/compare.yaml."""

from zsteer.app.commands import compare

if __name__ == "__main__":
    compare()
