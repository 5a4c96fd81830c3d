"""Annotation files as rows of named cells: workbooks and text files, whatever wrote them."""
