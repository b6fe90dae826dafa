"""`python -m adcore`."""

from adcore.cli import main

if __name__ == "__main__":
    main()
