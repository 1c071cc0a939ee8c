"""Recognisers that `bauta recognizers pull` fetches by name: a card NAME.toml each, with url and size, no weights."""
