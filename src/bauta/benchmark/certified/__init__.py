"""Tables of certified answers: how far recognisers under noise can be sure of pairs of faces."""
