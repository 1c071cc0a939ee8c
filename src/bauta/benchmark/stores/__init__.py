"""Tables of what a face service stores: does it still recognise, and what do attackers get out of it."""
