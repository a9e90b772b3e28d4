"""``python -m consolve``: the command line."""

from consolve.cli import main

if __name__ == "__main__":
    main()
