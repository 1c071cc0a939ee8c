"""False match rates at which Bauta decides, stated once."""

FMRS = (1e-2, 1e-3, 1e-4)
"""Those at which recognisers have thresholds; the first is the hardest for a mask to get below."""

SELECTION_FMR = 1e-3
"""At which a face counts as the person of a reference photo when faces are selected."""
