"""Many jobs as one command: steered as one batch, or as processes of their own; then one table of them all."""
