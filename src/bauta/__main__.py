"""``python -m bauta`` is the command line."""

from bauta.cli import main

main()
