"""Run the command line as `python -m medix_eval`."""

from medix_eval.cli.app import main

if __name__ == "__main__":
    main()
