"""Ctrl-C during a fit, as Lightning passes it on."""

import sys


def interrupted(*_, **__):
    """In place of `Trainer.fit`, or of what calls it."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)
