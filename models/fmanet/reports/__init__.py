"""What people read of a run.

run_report.py        its page, report.html
report_pictures.py   the pictures and curves on it
final_card.py        the model card of a network that was trained on everybody
"""
