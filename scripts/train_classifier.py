"""`python scripts/train_classifier.py [overrides]`: see configs/train_classifier.yaml."""

from zsteer.app.commands import train_classifier

if __name__ == "__main__":
    train_classifier()
