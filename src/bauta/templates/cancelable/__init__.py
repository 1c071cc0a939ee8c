"""Templates that can be revoked: a recogniser's template turned by a token, so that a stolen one can be replaced."""
