"""Training of GANs: losses, penalties, schedules, augmentation, and how close samples come to data."""
