"""``python -m node``: the command line, where the ``dongbo`` script is not on the path."""

from node.cli.main import main

if __name__ == "__main__":
    main()
