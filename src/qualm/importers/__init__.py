"""One foreign format a file: it is recognised without being run, and written as a model folder of ours."""
