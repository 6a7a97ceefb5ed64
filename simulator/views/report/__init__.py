"""One offline page that answers a scenario, to mail to whoever decides."""
