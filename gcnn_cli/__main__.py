"""Run `gcnn` as `python -m gcnn_cli`."""

from gcnn_cli.cli import main

if __name__ == "__main__":  # worker processes import this file, too
    main()
