"""Tables of cancelable templates: what they recognise, link and give back, with tokens secret and stolen."""
