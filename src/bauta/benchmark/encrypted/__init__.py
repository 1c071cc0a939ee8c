"""Tables of encrypted matching: whether its decisions are those in the clear, and what they cost."""
