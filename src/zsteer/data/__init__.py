"""Images with attributes: CelebA, drawn faces or anybody's own, as one kind of store and one stream of batches."""
