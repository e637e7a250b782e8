"""`python -m unfused`, the same as the command `unfused`."""

from unfused.cli import main

if __name__ == "__main__":
    main()
