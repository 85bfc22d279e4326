"""One probe a file. Never imports a mend, nor another probe."""
