"""Whether training on stylised images helps a classifier: equal steps, equal numbers of images, intervals."""
