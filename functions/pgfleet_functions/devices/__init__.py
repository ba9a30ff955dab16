"""Devices come in: enrolment, tokens, and the limit on wrong attempts."""
