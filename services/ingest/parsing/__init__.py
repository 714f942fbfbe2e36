"""What reads documents: a program of its own, which has nothing but one file and bounds."""
