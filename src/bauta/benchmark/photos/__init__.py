"""Tables of photos: masks against recognisers, with transports, searches and visibility."""
