"""Run the command line as `python -m pgfleet`."""

from pgfleet.main import app

if __name__ == "__main__":
    app(prog_name="pgfleet")
