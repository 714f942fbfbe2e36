"""agents: agents, and the runs in which they answer.

A run is carried by the process that accepted it, not by the connection that asked: its events are
kept before they are sent, and whoever watches may come, go and come again.
"""
