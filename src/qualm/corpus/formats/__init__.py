"""What documents are read from, one format a file: the folder is the registry."""
