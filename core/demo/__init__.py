"""`polling demo`: the main job, end to end, on real files. A program on top of `core.service`.

program    the demo from its start to its verdict
files      the files that are served, and those that are left out
ftpd       a real FTP server, a process that `server` starts
engine     the home folder, the servers, worker processes, and the two accounts
watching   progress bars
comparing  every file's bytes against the content table
report     the summary, and commands to try next
"""
