"""`python scripts/directions.py [overrides]`: see configs/directions.yaml."""

from zsteer.app.commands import directions

if __name__ == "__main__":
    directions()
