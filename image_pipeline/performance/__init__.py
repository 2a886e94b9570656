"""What runs took and why: times that may be added up, a report of weeks, and its page."""
