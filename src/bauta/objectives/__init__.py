"""Differentiable pieces that methods share: transports, visibility, distances between batches."""
