"""The photo side in a browser page on one's own machine: `bauta web`."""
