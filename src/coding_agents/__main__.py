"""`python -m coding_agents` is the command line."""

from coding_agents.cli.main import main

if __name__ == "__main__":
    main()
