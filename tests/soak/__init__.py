"""A soak: real servers, real processes, work without end, and random faults all the time: `nox -s
soak -- --minutes 30`.

world       servers, programs and what they wrote       faults   what is done to them
accounts    the work, and whether it came out right     memory   whether it grows
metered     a plugin that logs each of its calls        report   what is shown
"""
