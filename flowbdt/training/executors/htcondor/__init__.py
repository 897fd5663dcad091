"""HTCondor: descriptions, submission, and following what becomes of the jobs.

Sources: HTCondor manual, "condor_submit" (https://htcondor.readthedocs.io/en/latest/man-pages/
condor_submit.html) for the language of descriptions and quoting, "Job Event Log Codes" and "Hold
reason codes" for what comes back.
"""

from .executor import HTCondor

__all__ = ["HTCondor"]
