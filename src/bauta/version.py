"""The version, in a room of its own below all others, so that each can write it down."""

__version__ = "0.1.0"
