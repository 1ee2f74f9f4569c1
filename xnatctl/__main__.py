"""`python -m xnatctl`: the same as the command `xnatctl`."""

from xnatctl.cli.main import main

if __name__ == "__main__":
    main()
