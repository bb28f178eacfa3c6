"""Code of a user's classifier, as a text: quick, with features, and another without."""

from __future__ import annotations

EYES = """
import numpy as np

def mean_colour(images, device):
    means = np.stack([image.reshape(-1, 3).mean(0) for image in images]) + 1.0
    return {"probabilities": means / means.sum(1, keepdims=True), "features": means}

mean_colour.class_names = ("red, scarlet", "green", "blue")

def alone(images, device):
    return np.full((len(images), 2), 0.5)

def misnamed(images, device):
    return np.full((len(images), 2), 0.5)

misnamed.class_names = ("red", "green", "blue")

def counted(images, device):
    return np.full((len(images), 2), 0.5)

counted.class_names = 2
"""
