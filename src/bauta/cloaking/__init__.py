"""Protecting photos end to end: the pipeline, the judges' answer, the report, and many photos at once.

Nothing is imported here, so that the command line can read settings without torch.
"""
