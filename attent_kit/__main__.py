"""`python -m attent_kit` is the command `attentkit`."""

from attent_kit.cli import main

if __name__ == "__main__":
    main()
