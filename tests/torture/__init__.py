"""Bad files, kills, full disks and load, in numbers: `python -m tests.torture [--minutes N] [part ...]`."""
