"""`python -m failover` is the `failover` command."""

from failover.cli.main import main

if __name__ == "__main__":
    main()
