"""Photo-side methods: each turns face views into masks. One loop serves all that iterate."""
