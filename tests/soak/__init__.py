"""A soak: real servers, real processes, endless work, and random faults.

`nox -s soak -- --minutes 30` runs it.

* `world`: servers, programs and their log
* `faults`: the faults that the soak injects
* `accounts`: the work, and the checks of its result
* `memory`: the check that memory does not grow
* `metered`: a plugin that logs each of its calls
* `report`: progress lines, a table and JSON
"""
