"""`python -m llmsim` is the `llmsim` command."""

from llmsim.cli import main

main()
