"""Protectors that store what a mechanism of differential privacy releases, and say what that spends."""
