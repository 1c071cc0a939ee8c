"""Answers of a recogniser that hold for every small change of a face: randomised smoothing with its certificates."""
