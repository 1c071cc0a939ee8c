"""Clips in, clips out: decoding frame by frame, and writing them back with everything that is not a picture."""
