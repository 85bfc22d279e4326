"""One task a file: what a model is given, what of it is asked, and what is made of the answer."""
