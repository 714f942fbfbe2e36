"""What sources look at: each kind gives the things that are there."""
