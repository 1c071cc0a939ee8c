"""The benchmark that attacks both sides: sets of faces, protocols on their embeddings, results with intervals.

Nothing is imported here, so that a set can be read without torch.
"""
