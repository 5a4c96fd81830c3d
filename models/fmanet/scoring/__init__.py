"""From predictions to scores; nothing here looks at weights or flow, or loads torch.

prediction_table.py   the table that all scores come from
metrics.py            UF1, UAR and accuracy, pooled over folds
intervals.py          intervals over subjects, and paired differences of two runs
comparison.py         several runs as a table, CSV, LaTeX or a figure
"""
