"""`python scripts/evaluate.py [overrides]`: see configs/evaluate.yaml."""

from zsteer.app.commands import evaluate

if __name__ == "__main__":
    evaluate()
