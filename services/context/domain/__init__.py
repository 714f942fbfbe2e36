"""What search, digests and prompts are about, and the rules that need nothing else."""
