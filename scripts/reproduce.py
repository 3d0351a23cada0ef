"""`python scripts/reproduce.py [overrides]`: see configs/reproduce.yaml."""

from zsteer.app.commands import reproduce

if __name__ == "__main__":
    reproduce()
