"""`python -m surestep` is the command `surestep`."""

from surestep.cli.main import main

if __name__ == "__main__":
    main()
