"""`python scripts/summarize.py [overrides]`: see configs/summarize.yaml."""

from zsteer.app.commands import summarize

if __name__ == "__main__":
    summarize()
