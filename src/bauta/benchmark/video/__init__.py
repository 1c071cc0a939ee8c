"""Tables of clips: what the best frame gives an attacker, how much a mask flickers, and how long it takes."""
