"""One verb a file: parse, call, print. The only room that prints and reads the environment."""
