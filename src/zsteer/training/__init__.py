"""What the training of GANs and of classifiers shares: the Trainer, exact resuming, checkpoints, exported weights."""
