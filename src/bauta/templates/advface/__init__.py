"""AdvFace: the protector, its shadows, and the loss it makes them pay."""
