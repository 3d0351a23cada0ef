"""The noise whose generated image is nearest to a picture."""
