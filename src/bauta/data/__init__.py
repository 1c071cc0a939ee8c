"""Readers of data sets: images, pairs and people, as users have them on disk."""
