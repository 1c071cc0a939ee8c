"""Adversaries against either side: who purifies photos, who adapts to protected ones, and what they know.

Every one carries an `AttackerCard`. Training rests on one loop, `fitting.fit`.
"""
