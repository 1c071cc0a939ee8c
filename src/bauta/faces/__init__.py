"""Faces: finding them, aligning them to a recogniser's crop, and carrying perturbations back.

`detection` and `warp` import torch; `templates`, `faces` and `alignment` do not.
"""
