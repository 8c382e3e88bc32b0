"""`polling demo`: sync real files end to end. The demo is a program on top of `core.service`.

program    the steps of the demo
files      the files that are served or skipped
ftpd       the FTP server process
server     starts the FTP server

engine     the servers, the workers and the two accounts
watching   progress bars
comparing  compares files with the content table
report     the summary, and commands to try next
"""
