"""Which labels of which data set form which class."""
