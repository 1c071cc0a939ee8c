"""Recognisers that travel with Bauta: a card NAME.toml each, and the weights it names beside it."""
