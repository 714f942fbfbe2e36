"""Tools that read the contracts: generation, the policy check, the comparison with a release."""
