"""The face service over HTTP: `bauta serve`."""
