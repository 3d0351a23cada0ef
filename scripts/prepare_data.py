"""`python scripts/prepare_data.py [overrides]`: see configs/prepare_data.yaml."""

from zsteer.app.commands import prepare_data

if __name__ == "__main__":
    prepare_data()
