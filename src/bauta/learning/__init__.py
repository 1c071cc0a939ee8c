"""What learns on either side: one training loop, and the decoders."""
