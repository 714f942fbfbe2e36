"""What a hostile world does: faults with seeds, each suite with the defects that it must catch."""
