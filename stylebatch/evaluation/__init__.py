"""What a whole output is worth by the field's numbers: distances between sets of pictures, with intervals."""
