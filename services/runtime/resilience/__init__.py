"""What keeps a slow or broken neighbour from taking the whole mesh along, on both ends of a call.

Outgoing calls: a breaker, a bulkhead and a retry budget for each module that is called, and a
deadline that leaves the caller time to answer. Incoming calls: a bound, fair to each tenant, that
falls when the process cannot keep up.
"""
