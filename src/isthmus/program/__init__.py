"""What the two long-running programs have in common: work queues, watches with their upkeep, logs, and the HTTP port
for health and metrics. The server and the agent import it; it knows neither.
"""
