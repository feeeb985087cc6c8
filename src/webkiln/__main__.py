"""`python -m webkiln` is the `webkiln` command."""

from webkiln.cli import main

if __name__ == "__main__":
    main()
