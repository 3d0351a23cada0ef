"""`python scripts/export.py [overrides]`: see configs/export.yaml."""

from zsteer.app.commands import export

if __name__ == "__main__":
    export()
