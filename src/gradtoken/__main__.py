"""`python -m gradtoken` is `gradtoken`."""

from gradtoken.cli import main

if __name__ == "__main__":
    main()
