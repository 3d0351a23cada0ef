"""Score generators, classifiers and directions, and compare steering methods."""
