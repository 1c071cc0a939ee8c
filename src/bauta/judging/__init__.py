"""Did it work? What judges say of a photo, under which conditions, and how visible the change is."""
