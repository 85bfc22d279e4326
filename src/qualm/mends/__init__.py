"""One mend a file. Never imports a probe, nor another mend."""
