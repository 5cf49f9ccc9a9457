"""`trl-onevision select`: which rows of a dataset a model can learn from, by what it answers to them."""
