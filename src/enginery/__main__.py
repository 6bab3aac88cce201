"""``python -m enginery`` is the command ``enginery``."""

from enginery.cli.main import main

if __name__ == "__main__":
    main()
