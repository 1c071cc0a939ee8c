"""Matching under encryption (CryptoMask): a door learns whether a gallery knows a face, neither side learns more."""
