"""Matching under encryption: a door learns whether a gallery knows a face, and neither side learns more (CryptoMask)."""
