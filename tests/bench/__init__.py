"""How fast it is, as ratios against something that runs in the same minutes: `make bench`."""
