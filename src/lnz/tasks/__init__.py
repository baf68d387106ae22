"""One module or package per task, imported by the command line when asked for."""
