"""What ``green-screen`` does on a command line.

Imports: names, power, report.
"""
