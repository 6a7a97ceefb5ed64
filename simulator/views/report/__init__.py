"""One offline page that answers a scenario: what to mail to whoever decides."""
