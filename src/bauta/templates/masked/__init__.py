"""Masked faces: maskings, mixtures, and the networks that read them."""
