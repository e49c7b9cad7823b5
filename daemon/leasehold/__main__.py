"""`python -m leasehold` is the `leasehold` command."""

from leasehold.cli.app import main

if __name__ == "__main__":
    main()
