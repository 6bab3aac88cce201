"""The seed, "Details of Parallel Computing with IPython", statement by statement.

One test for each statement, S1 to S78, a file for each of the document's headings.
"""
