"""Authentication and authorisation: rights and the rules that grant them, credentials, key files, CURVE and ZAP."""
