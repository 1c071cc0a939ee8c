"""Differential privacy for faces: exact noise, totals over everything released, a ledger, and an audit by attack."""
