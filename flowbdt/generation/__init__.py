"""From a trained run to events: sampling, rejection, packed models, exports."""
