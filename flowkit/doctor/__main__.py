"""`python -m flowkit.doctor`: what `flowkit doctor` prints, where not even the command line starts."""

from flowkit.doctor.examination import main

main()
