"""Tables of attackers who purify photos, and who train on protected ones."""
