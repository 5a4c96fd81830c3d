"""report.html of a folder of shards, and the parts that other pages share."""
