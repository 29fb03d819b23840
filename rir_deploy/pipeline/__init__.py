"""Where the stages meet: one file a command of the command line, usable from Python just as well.

Stages know nothing of each other; what one needs from another is handed to it here.
"""
