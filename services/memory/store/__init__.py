"""How memory is kept: functions on a connection, each about one space of one tenant.

Which of them belong into one transaction is for the services to say.
"""
