"""`python -m mqinfer`: the command line."""

from mqinfer.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
