"""`python scripts/train_gan.py [overrides]`: see configs/train_gan.yaml."""

from zsteer.app.commands import train_gan

if __name__ == "__main__":
    train_gan()
