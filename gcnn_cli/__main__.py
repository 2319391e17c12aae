"""`python -m gcnn_cli` is `gcnn`."""

from gcnn_cli.cli import main

if __name__ == "__main__":  # not where worker processes import it
    main()
