"""What ``green-screen`` does on a command line.

Imports: names, options, power, report.
"""
